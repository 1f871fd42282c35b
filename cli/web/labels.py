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
from labelstore.cli.web.endpoints import NPY, NPZ, RAW, Call, Endpoint, as_json, tagged
from labelstore.cli.web.naming import BOX, ONE_ROW, STATUS, boxes_of, keys_of, keys_schema, one_row, rows_of
from labelstore.cli.web.parameters import Parameter, RequestError
from labelstore.cli.web.schemas import BOOLEAN, CLASS_SHARE, INTEGER, OBJECT, OBJECT_OR_NONE, STRING, an_object, list_of
from labelstore.cli.web.site import Site
from labelstore.crop_risk import stored_aspects
from labelstore.labelmap import location_probabilities
from labelstore.random_crops import random_boxes
from labelstore.schema import NO_CLASS, Status

MOST_KEYS, MOST_MAPS, MOST_MAPS_AT_ONCE = 4096, 16, 256
MOST_VALUES = 2**24
"""Probabilities in one answer, 64 MB of them."""
MOST_CROPS = 64
_TOP = Parameter("top", "integer", "Classes of each soft label, in JSON.", 5, least=1, most=100)
_ASPECT = "The image's width over its height. By default as the store has its size, else 1."
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
    keys = keys_of(call.body, MOST_KEYS)
    boxes = boxes_of(call.body, len(keys))
    if len(keys) * site.info.num_classes > MOST_VALUES:
        most = MOST_VALUES // site.info.num_classes
        raise RequestError(413, f"{len(keys)} labels of {site.info.num_classes} classes: expected at most {most} at once")
    soft = site.reader.pool(rows_of(site, keys), boxes, call["temperature"])
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
    boxes = random_boxes(np.random.default_rng(call["seed"]), call["count"], call["aspect"] or _aspect(site, row))
    soft = site.reader.pool(np.full(len(boxes), row), boxes)
    site.labels_served += len(soft)
    crops = [
        {"box": [round(edge, 5) for edge in box], "label": label_as_json(label, call["top"], site.info)}
        for box, label in zip(boxes.tolist(), soft, strict=True)
    ]
    return as_json({"crops": crops})


def _aspect(site: Site, row: int) -> float:
    stored = float(stored_aspects(site.reader, np.array([row]))[0])
    return 1.0 if np.isnan(stored) else stored


def _map_of_one(call: Call) -> Response:
    site, row = call.site, one_row(call)
    status = int(site.reader.status([row])[0])
    stamp = f"map {site.identity} {row} {site.reader.ids[row]} {status} {site.target(row)} {site.is_compared(row)}"
    if status == Status.DONE:
        stamp += f" {site.reader.image_crc32(row)}"
    return tagged(call, stamp, lambda: as_json(describe_map(site, row, Status(status))))


def _maps(call: Call) -> Response:
    site = call.site
    most = MOST_MAPS if call["format"] == "json" else MOST_MAPS_AT_ONCE
    maps = site.reader.read(rows_of(site, keys_of(call.body, most)))
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
    found |= {
        "target": site.target(row),
        "compared": site.is_compared(row),
        "reason": "",
        "size": None,
        "map": None,
        "whole": [],
        "swatches": {},
    }
    if status == Status.FAILED:
        found["reason"] = site.reader.error(row)
    if status != Status.DONE:
        return found
    size = site.reader.image_size([row])[0].tolist() if site.info.image_sizes else [0, 0]
    found["size"] = size if all(size) else None
    label_map = site.reader[row]
    probabilities = location_probabilities(label_map.classes, label_map.scores, site.info.num_classes)
    view = MapView.from_map(label_map.classes, label_map.scores, site.info.num_classes)
    whole = site.reader.pool([row], [WHOLE_IMAGE])[0]
    listed = np.unique(label_map.classes[label_map.classes != NO_CLASS]).tolist()
    sure = dict(view.shown)
    found["whole"] = label_as_json(whole, 10, site.info)
    found["map"] = {
        "height": view.height,
        "width": view.width,
        "classes": label_map.classes.tolist(),
        "probabilities": np.round(probabilities, 4).tolist(),
        "shares": [
            {"class": number, "share": round(share, 4), "sure": round(sure.get(number, 0.0), 4)}
            for number, share in view.shares
        ],
        "names": {number: class_name(number, site.info.class_names) for number in listed},
    }
    found["swatches"] = {number: describe_swatch(swatch) for number, swatch in view.swatches().items()}
    found["other"] = describe_swatch(OTHER)
    return found


def describe_swatch(swatch: Swatch) -> dict[str, str]:
    """Return a class's letter and colours as the page uses them."""
    return {"letter": swatch.letter, "colour": css(swatch.colour), "text": css(swatch.text)}


def _rounded(scores: NDArray[np.float32]) -> list[Any]:
    found: list[Any] = np.round(scores.astype(np.float64), 4).tolist()
    return found


_LABEL = list_of(CLASS_SHARE)
POOL = Endpoint(
    "/api/pool",
    "Soft labels of crops: boxes as fractions (x1, y1, x2, y2) of the image's width and height.",
    _pool,
    (_POOL_FORMAT, _TOP, _TEMPERATURE),
    method="POST",
    body=keys_schema(MOST_KEYS, boxes=True),
    answer=an_object({"labels": list_of(_LABEL)}),
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
        Parameter("aspect", "number", _ASPECT, least=0.01, most=100),
        _TOP,
    ),
    answer=an_object({"crops": list_of(an_object({"box": BOX, "label": _LABEL}))}),
    statuses=(404, 409),
)
MAP = Endpoint(
    "/api/maps",
    "One image's label map with its probabilities, the soft label of the whole image, colours; or why there is none.",
    _map_of_one,
    ONE_ROW,
    answer=an_object(
        {
            "row": INTEGER,
            "id": STRING,
            "status": STATUS,
            "target": OBJECT_OR_NONE,
            "compared": {**BOOLEAN, "description": "Whether that label can be held against maps."},
            "reason": STRING,
            "size": {"type": ["array", "null"], "items": INTEGER, "description": "Width and height in pixels, where known."},
            "map": OBJECT_OR_NONE,
            "whole": _LABEL,
            "swatches": OBJECT,
        }
    ),
    statuses=(304, 404),
)
MAPS = Endpoint(
    "/api/maps",
    f"Label maps of several images: classes and scores, in JSON (at most {MOST_MAPS}) or as npz ({MOST_MAPS_AT_ONCE}).",
    _maps,
    (Parameter("format", "string", "Of the answer.", "json", choices=("json", "npz")),),
    method="POST",
    body=keys_schema(MOST_MAPS_AT_ONCE, boxes=False),
    answer=an_object({"maps": list_of({})}),
    others=(NPZ,),
    statuses=(400, 404, 409, 413),
)
