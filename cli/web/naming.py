"""The rows and boxes that a request names, checked; and what the description says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.cli.web.endpoints import Call
from labelstore.cli.web.parameters import Parameter, RequestError
from labelstore.cli.web.schemas import INTEGER, NUMBER, STRING, an_object, list_of
from labelstore.cli.web.site import Site
from labelstore.schema import Status

ONE_ROW = (
    Parameter("id", "string", "The image id.", most=4096),
    Parameter("row", "integer", "The image's row, instead.", least=0, most=2**48),
)
BOX = list_of(NUMBER, minItems=4, maxItems=4)
STATUS = {"enum": [status.name.lower() for status in Status]}


def one_row(call: Call) -> int:
    """Return the row that ``id`` or ``row`` names.

    Raises
    ------
    RequestError
        Neither or both are given, or there is no such image.
    RowIndexError
    """
    image_id, row = call["id"], call["row"]
    if (image_id is None) == (row is None):
        raise RequestError(422, "expected either id or row, and one of them")
    if image_id is not None:
        return int(rows_of(call.site, [image_id])[0])
    status = call.site.reader.status([row])[0]  # checks the row
    if status == Status.HOLE or not call.site.reader.ids[row]:
        raise RequestError(404, f"row {row}: belongs to no image")
    return int(row)


def rows_of(site: Site, keys: list[Any]) -> NDArray[np.int64]:
    """Return the rows of ids or rows. Similar ids, which `LabelMapReader` looks for, would cost a second among a million."""
    if isinstance(keys[0], int):
        return np.array(keys, np.int64)
    rows, known = site.reader.ids.find(keys)
    if not known.all():
        raise RequestError(404, f"no image id {keys[int(np.argmin(known))][:200]!r} among {len(site.reader)}")
    return rows


def keys_of(body: Any, most: int) -> list[Any]:
    """Return the ids or rows that a body names.

    Raises
    ------
    RequestError
    """
    if not isinstance(body, dict):
        raise RequestError(422, f"body: expected an object, got {type(body).__name__}")
    unknown = set(body) - {"ids", "rows", "boxes"}
    if unknown or ("ids" in body) == ("rows" in body):
        given = ", ".join(sorted(map(str, body)))[:80] or "nothing"
        expected = "body: expected either ids or rows, and boxes where crops are pooled"
        raise RequestError(422, f"{expected}, got {given}; all else goes into the address")
    name, kind = ("ids", str) if "ids" in body else ("rows", int)
    keys = body[name]
    if not isinstance(keys, list) or not len(keys) > 0 or set(map(type, keys)) != {kind}:
        raise RequestError(422, f"{name}: expected a list of {'texts' if kind is str else 'whole numbers'}, not empty")
    if len(keys) > most:
        raise RequestError(413, f"{name}: expected at most {most} at once, got {len(keys)}")
    if kind is int and not all(0 <= key < 2**48 for key in keys):
        raise RequestError(422, "rows: expected whole numbers from 0 on")
    return keys


def boxes_of(body: Any, count: int) -> NDArray[np.float64]:
    """Return the boxes of a body, float64 ``[count, 4]``.

    Raises
    ------
    RequestError
    """
    boxes = body.get("boxes")
    good = isinstance(boxes, list) and all(
        isinstance(box, list) and len(box) == 4 and set(map(type, box)) <= {int, float} for box in boxes
    )
    if not good:
        raise RequestError(422, "boxes: expected a list of [x1, y1, x2, y2]: fractions of the image's width and height")
    if len(boxes) != count:
        raise RequestError(422, f"boxes: expected {count}, one a key, got {len(boxes)}")
    try:
        return np.array(boxes, np.float64)
    except OverflowError as error:
        raise RequestError(422, f"boxes: expected fractions: {error}") from error


def keys_schema(most: int, *, boxes: bool) -> dict[str, Any]:
    """A body with either ids or rows, and a box for each where crops are pooled."""
    bounds = {"minItems": 1, "maxItems": most}
    more = {"boxes": list_of(BOX, **bounds)} if boxes else {}
    kinds = {"ids": list_of(STRING, **bounds), "rows": list_of({**INTEGER, "minimum": 0}, **bounds)}
    return {"oneOf": [{**an_object({name: kind, **more}), "additionalProperties": False} for name, kind in kinds.items()]}
