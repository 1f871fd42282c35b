"""`/api/ids` and `/api/classes`: the images and the classes of a store, searched and filtered, page by page."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.responses import Response

from labelstore.cli.colours import PALETTE, css
from labelstore.cli.mapview import class_name
from labelstore.cli.web.endpoints import Call, Endpoint, as_json
from labelstore.cli.web.naming import STATUS
from labelstore.cli.web.parameters import Parameter
from labelstore.cli.web.schemas import BOOLEAN, CLASS_SHARE, INTEGER, NUMBER, OBJECT_OR_NONE, STRING, an_object, list_of
from labelstore.cli.web.selecting import ORDERS, STATUSES, Selection, classes_named, select
from labelstore.cli.web.site import Site
from labelstore.schema import NO_CLASS, Status

MOST_LISTED = 500
_LONGEST = 200
FILTERS = (
    Parameter("q", "string", "A part of the image id, or of the name of a class that the map shows.", "", most=_LONGEST),
    Parameter("class", "integer", "A class that is the best one somewhere in the map.", least=0, most=NO_CLASS - 1),
    Parameter("share", "number", "With `class`: in at least such a share of the locations.", 0.0, least=0, most=1),
    Parameter("status", "string", "What the row holds.", choices=tuple(STATUSES)),
    Parameter("disagrees", "boolean", "The best class of the image is not that of its single label.", default=False),
    Parameter("several", "number", "`classes` classes or more have at least such a share of the locations.", least=0, most=1),
    Parameter("classes", "integer", "With `several`: how many.", 2, least=1, most=6),
    Parameter("entropy", "number", "The least entropy of the image's soft label, in nats.", least=0, most=20),
    Parameter("order", "string", "What comes first.", "row", choices=ORDERS),
)
PAGE = (
    Parameter("offset", "integer", "How many to leave out at the start.", 0, least=0, most=2**48),
    Parameter("limit", "integer", "How many at most.", 100, least=1, most=MOST_LISTED),
)


def selection_of(call: Call) -> Selection:
    """Return what a request's filters say."""
    return Selection(
        text=call["q"].strip(),
        chosen=call["class"],
        share=call["share"] if call["class"] is not None else 0.0,
        status=call["status"] or "",
        disagrees=call["disagrees"],
        several=call["several"],
        at_least=call["classes"] if call["several"] is not None else 2,
        entropy=call["entropy"],
        order=call["order"],
    )


def _list_ids(call: Call) -> Response:
    site, start, stop = call.site, call["offset"], call["offset"] + call["limit"]
    wanted = selection_of(call)
    if wanted.is_everything:
        total, rows = site.info.num_images, site.image_rows(start, stop)
    else:
        chosen = select(site, wanted)
        total, rows = len(chosen), chosen[start:stop].tolist()
    surveyed = {"rows": site.surveyor.looked_at, "finished": site.surveyor.finished.is_set()}
    return as_json({"total": total, "offset": start, "surveyed": surveyed, "images": describe_rows(site, rows)})


def describe_rows(site: Site, rows: list[int]) -> list[dict[str, Any]]:
    """Return what a page of images shows of each."""
    survey = site.surveyor.survey
    disagrees = site.disagrees()
    statuses = site.reader.status(np.array(rows, np.int64)) if rows else ()
    found = []
    for row, status in zip(rows, statuses, strict=True):
        entry: dict[str, Any] = {"row": row, "id": site.reader.ids[row], "status": Status(status).name.lower()}
        entry["target"] = site.target(row)
        if row < len(survey) and survey.known[row]:
            best = int(survey.best[row])
            entry["best"] = {
                "class": best,
                "name": class_name(best, site.info.class_names),
                "probability": round(float(survey.best_probability[row]), 4),
            }
            entry["entropy"] = round(float(survey.entropy[row]), 3)
            entry["disagrees"] = bool(disagrees[row])
        found.append(entry)
    return found


def _list_classes(call: Call) -> Response:
    site = call.site
    numbers = classes_named(site, call["q"].strip()) if call["q"].strip() else list(range(site.info.num_classes))
    counts = site.class_counts()
    if call["order"] == "images":
        numbers.sort(key=lambda number: -counts[number])
    page = numbers[call["offset"] : call["offset"] + call["limit"]]
    return as_json({"total": len(numbers), "offset": call["offset"], "classes": [describe_class(site, n) for n in page]})


def describe_class(site: Site, number: int) -> dict[str, Any]:
    """Return a class with its name, stable id, colour, and the images whose map shows it, as far as is known."""
    ids = site.info.class_ids
    return {
        "class": number,
        "name": class_name(number, site.info.class_names),
        **({"id": ids[number]} if ids else {}),
        "colour": css(PALETTE[number % len(PALETTE)]),
        "images": int(site.class_counts()[number]),
    }


_SURVEYED = an_object({"rows": INTEGER, "finished": BOOLEAN})
_IMAGE = an_object(
    {"row": INTEGER, "id": STRING, "status": STATUS, "target": OBJECT_OR_NONE},
    {"best": CLASS_SHARE, "entropy": NUMBER, "disagrees": BOOLEAN},
)
IDS = Endpoint(
    "/api/ids",
    "Images, searched, filtered and in order, page by page.",
    _list_ids,
    (*FILTERS, *PAGE),
    answer=an_object(
        {
            "total": {**INTEGER, "description": "Images that the filters leave, of those looked at by now."},
            "offset": INTEGER,
            "surveyed": _SURVEYED,
            "images": list_of(_IMAGE),
        }
    ),
)
_CLASS = an_object(
    {"class": INTEGER, "name": STRING, "colour": {**STRING, "pattern": "^#[0-9a-f]{6}$"}, "images": INTEGER}, {"id": STRING}
)
CLASSES = Endpoint(
    "/api/classes",
    "Classes, by number or by how many images show them.",
    _list_classes,
    (
        Parameter("q", "string", "A part of the name or of the stable id.", "", most=_LONGEST),
        Parameter("order", "string", "What comes first.", "class", choices=("class", "images")),
        *PAGE,
    ),
    answer=an_object({"total": INTEGER, "offset": INTEGER, "classes": list_of(_CLASS)}),
)
