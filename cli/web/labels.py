"""`/api/pool`, `/api/crops` and `/api/maps`: soft labels of crops, and label maps, for the page and for any program."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from labelstore.boxes import WHOLE_IMAGE
from labelstore.cli.colours import OTHER, Swatch, css
from labelstore.cli.mapview import MapView, class_name, label_as_json
from labelstore.cli.web.endpoints import JSON, NPY, NPZ, RAW, Call, Endpoint, as_json, tagged
from labelstore.cli.web.parameters import Parameter, RequestError
from labelstore.cli.web.site import Site
from labelstore.labelmap import location_probabilities
from labelstore.random_crops import random_boxes
from labelstore.schema import NO_CLASS, Status

MOST_KEYS, MOST_MAPS, MOST_MAPS_AT_ONCE = 4096, 16, 256
MOST_VALUES = 2**24
"""Probabilities in one answer, 64 MB of them."""
MOST_CROPS = 64
_TOP = Parameter("top", "integer", "Classes of each soft label, in JSON.", 5, least=1, most=100)
_TEMPERATURE = Parameter("temperature", "number", "Divides the pooled logits before the softmax.", 1.0, least=0.001, most=1000)
_POOL_FORMAT = Parameter(
    "format",
    "string",
    "`json`: the `top` classes of each; `raw`: all, float32 little-endian [B, C], shape in the header `x-shape`; `npy`.",
    "json",
    choices=("json", "raw", "npy"),
)


def _pool(call: Call) -> Response:
    site = call.site
    keys = _keys_of(call.body, MOST_KEYS)
    boxes = _boxes_of(call.body, len(keys))
    if len(keys) * site.info.num_classes > MOST_VALUES:
        most = MOST_VALUES // site.info.num_classes
        raise RequestError(413, f"{len(keys)} labels of {site.info.num_classes} classes: expected at most {most} at once")
    soft = site.reader.pool(_rows_of(site, keys), boxes, call["temperature"])
    site.labels_served += len(soft)
    if call["format"] == "raw":
        return Response(
            soft.astype("<f4", copy=False).tobytes(), headers={"x-shape": f"{len(soft)},{soft.shape[1]}"}, media_type=RAW
        )
    if call["format"] == "npy":
        buffer = io.BytesIO()
        np.save(buffer, soft, allow_pickle=False)
        return Response(buffer.getvalue(), media_type=NPY)
    return as_json({"labels": [label_as_json(label, call["top"], site.info) for label in soft]})


def _crops(call: Call) -> Response:
    site = call.site
    row = one_row(call)
    boxes = random_boxes(np.random.default_rng(call["seed"]), call["count"], call["aspect"])
    soft = site.reader.pool(np.full(len(boxes), row), boxes)
    site.labels_served += len(soft)
    crops = [
        {"box": [round(edge, 5) for edge in box], "label": label_as_json(label, call["top"], site.info)}
        for box, label in zip(boxes.tolist(), soft, strict=True)
    ]
    return as_json({"crops": crops})


def _map_of_one(call: Call) -> Response:
    site, row = call.site, one_row(call)
    status = int(site.reader.status([row])[0])
    stamp = f"map {site.identity} {row} {site.reader.ids[row]} {status}"
    if status == Status.DONE:
        stamp += f" {site.reader.image_crc32(row)}"
    return tagged(call, stamp, lambda: as_json(describe_map(site, row, Status(status))))


def _maps(call: Call) -> Response:
    site = call.site
    most = MOST_MAPS if call["format"] == "json" else MOST_MAPS_AT_ONCE
    maps = site.reader.read(_rows_of(site, _keys_of(call.body, most)))
    if call["format"] == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, classes=maps.classes, scores=maps.scores)
        return Response(buffer.getvalue(), media_type=NPZ)
    found = [
        {"classes": classes.tolist(), "scores": _rounded(scores)}
        for classes, scores in zip(maps.classes, maps.scores, strict=True)
    ]
    return as_json({"maps": found})


def describe_map(site: Site, row: int, status: Status) -> dict[str, Any]:
    """Return all that the page of an image shows, the photograph aside."""
    found: dict[str, Any] = {"row": row, "id": site.reader.ids[row], "status": status.name.lower()}
    found |= {"target": site.target(row), "reason": "", "map": None, "whole": [], "swatches": {}}
    if status == Status.FAILED:
        found["reason"] = site.reader.error(row)
    if status != Status.DONE:
        return found
    label_map = site.reader[row]
    probabilities = location_probabilities(label_map.classes, label_map.scores, site.info.num_classes)
    view = MapView.from_map(label_map.classes, label_map.scores, site.info.num_classes)
    whole = site.reader.pool([row], [WHOLE_IMAGE])[0]
    listed = np.unique(label_map.classes[label_map.classes != NO_CLASS]).tolist()
    found["whole"] = label_as_json(whole, 10, site.info)
    found["map"] = {
        "height": view.height,
        "width": view.width,
        "classes": label_map.classes.tolist(),
        "probabilities": np.round(probabilities, 4).tolist(),
        "shares": [{"class": number, "share": round(share, 4)} for number, share in view.shares],
        "names": {number: class_name(number, site.info.class_names) for number in listed},
    }
    found["swatches"] = {number: describe_swatch(swatch) for number, swatch in view.swatches().items()}
    found["other"] = describe_swatch(OTHER)
    return found


def describe_swatch(swatch: Swatch) -> dict[str, str]:
    """Return a class's letter and colours as the page uses them."""
    return {"letter": swatch.letter, "colour": css(swatch.colour), "text": css(swatch.text)}


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
        return int(_rows_of(call.site, [image_id])[0])
    status = call.site.reader.status([row])[0]  # checks the row
    if status == Status.HOLE or not call.site.reader.ids[row]:
        raise RequestError(404, f"row {row}: belongs to no image")
    return int(row)


ONE_ROW = (
    Parameter("id", "string", "The image id.", most=4096),
    Parameter("row", "integer", "The image's row, instead.", least=0, most=2**48),
)


def _rows_of(site: Site, keys: list[Any]) -> NDArray[np.int64]:
    """Return the rows of ids or rows. Similar ids, which `LabelMapReader` looks for, would cost a second among a million."""
    if isinstance(keys[0], int):
        return np.array(keys, np.int64)
    rows, known = site.reader.ids.find(keys)
    if not known.all():
        raise RequestError(404, f"no image id {keys[int(np.argmin(known))][:200]!r} among {len(site.reader)}")
    return rows


def _keys_of(body: Any, most: int) -> list[Any]:
    """Return the ids or rows that a body names.

    Raises
    ------
    RequestError
    """
    if not isinstance(body, dict):
        raise RequestError(422, f"body: expected an object, got {type(body).__name__}")
    unknown = set(body) - {"ids", "rows", "boxes"}
    if unknown or ("ids" in body) == ("rows" in body):
        raise RequestError(422, "body: expected either ids or rows, and boxes where crops are pooled")
    name, kind = ("ids", str) if "ids" in body else ("rows", int)
    keys = body[name]
    if not isinstance(keys, list) or not len(keys) > 0 or set(map(type, keys)) != {kind}:
        raise RequestError(422, f"{name}: expected a list of {'texts' if kind is str else 'whole numbers'}, not empty")
    if len(keys) > most:
        raise RequestError(413, f"{name}: expected at most {most} at once, got {len(keys)}")
    if kind is int and not all(0 <= key < 2**48 for key in keys):
        raise RequestError(422, "rows: expected whole numbers from 0 on")
    return keys


def _boxes_of(body: Any, count: int) -> NDArray[np.float64]:
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


def _rounded(scores: NDArray[np.float32]) -> list[Any]:
    return np.round(scores.astype(np.float64), 4).tolist()  # type: ignore[no-any-return]


_LABEL = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["class", "name", "probability"],
        "properties": {
            "class": {"type": "integer"},
            "name": {"type": "string"},
            "id": {"type": "string"},
            "probability": {"type": "number"},
        },
    },
}
_BOX = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}


def _keys_schema(most: int, *, boxes: bool) -> dict[str, Any]:
    """A body with either ids or rows, and a box for each where crops are pooled."""
    ids = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": most}
    rows = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": most}
    more = {"boxes": {"type": "array", "items": _BOX, "minItems": 1, "maxItems": most}} if boxes else {}
    return {
        "oneOf": [
            {
                "type": "object",
                "required": [name, *more],
                "properties": {name: schema, **more},
                "additionalProperties": False,
            }
            for name, schema in (("ids", ids), ("rows", rows))
        ]
    }


POOL = Endpoint(
    "/api/pool",
    "Soft labels of crops: boxes as fractions (x1, y1, x2, y2) of the image's width and height.",
    _pool,
    (_POOL_FORMAT, _TOP, _TEMPERATURE),
    method="POST",
    body=_keys_schema(MOST_KEYS, boxes=True),
    answer={"type": "object", "required": ["labels"], "properties": {"labels": {"type": "array", "items": _LABEL}}},
    others=(RAW, NPY),
    statuses=(400, 404, 409, 413),
)
CROPS = Endpoint(
    "/api/crops",
    "Random training crops of an image (RandomResizedCrop), and their soft labels.",
    _crops,
    (
        *ONE_ROW,
        Parameter("count", "integer", "How many.", 8, least=1, most=MOST_CROPS),
        Parameter("seed", "integer", "The same crops for the same number.", 0, least=0, most=2**31 - 1),
        Parameter("aspect", "number", "The image's width over its height.", 1.0, least=0.01, most=100),
        _TOP,
    ),
    answer={
        "type": "object",
        "required": ["crops"],
        "properties": {
            "crops": {
                "type": "array",
                "items": {"type": "object", "required": ["box", "label"], "properties": {"box": _BOX, "label": _LABEL}},
            }
        },
    },
    statuses=(404, 409),
)
MAP = Endpoint(
    "/api/maps",
    "One image's label map with its probabilities, the soft label of the whole image, colours; or why there is none.",
    _map_of_one,
    ONE_ROW,
    answer={
        "type": "object",
        "required": ["row", "id", "status", "target", "reason", "map", "whole", "swatches"],
        "properties": {
            "row": {"type": "integer"},
            "id": {"type": "string"},
            "status": {"enum": [status.name.lower() for status in Status]},
            "target": {"type": ["object", "null"]},
            "reason": {"type": "string"},
            "map": {"type": ["object", "null"]},
            "whole": _LABEL,
            "swatches": {"type": "object"},
        },
    },
    statuses=(304, 404),
)
MAPS = Endpoint(
    "/api/maps",
    f"Label maps of several images: classes and scores, in JSON (at most {MOST_MAPS}) or as npz ({MOST_MAPS_AT_ONCE}).",
    _maps,
    (Parameter("format", "string", "Of the answer.", "json", choices=("json", "npz")),),
    method="POST",
    body=_keys_schema(MOST_MAPS_AT_ONCE, boxes=False),
    answer={"type": "object", "required": ["maps"], "properties": {"maps": {"type": "array"}}},
    others=(NPZ,),
    statuses=(400, 404, 409, 413),
)
__all__ = ["CROPS", "JSON", "MAP", "MAPS", "ONE_ROW", "POOL", "describe_map", "one_row"]
