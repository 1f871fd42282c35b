"""`/api/healthz`, `/api/info`, `/api/survey` and `/api/failures`: what is known of the store as a whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from starlette.responses import Response

from labelstore.cli.info import facts_of
from labelstore.cli.leftout import left_out
from labelstore.cli.mapview import class_name
from labelstore.cli.web.browsing import PAGE
from labelstore.cli.web.endpoints import Call, Endpoint, as_json
from labelstore.cli.web.parameters import Parameter
from labelstore.cli.web.schemas import INTEGER, OBJECT, an_object
from labelstore.schema import Status
from labelstore.statistics import SHOWN, class_facts, confusions, overview
from labelstore.version import __version__

_MOST_LISTED = 200


def _healthz(call: Call) -> Response:
    return as_json({"status": "ok", "rows": call.site.info.num_rows})


def _info(call: Call) -> Response:
    site, info = call.site, call.site.info
    counts = site.counts()
    facts = facts_of(info, site.location, counts)
    return as_json(
        {
            "version": __version__,
            "store": site.location,
            "rows": {"all": counts.rows, "done": counts.done, "failed": counts.failed, "pending": counts.pending},
            "bytes": counts.size_bytes,
            "encoding": info.encoding,
            "num_classes": info.num_classes,
            "top_k": info.top_k,
            "map_size": list(info.map_size),
            "annotator": info.annotator.full_name,
            "has_targets": bool((site.surveyor.survey.own >= 0).any()),
            "facts": [{"name": name, "value": value} for name, value in facts],
        }
    )


def _survey(call: Call) -> Response:
    site, survey = call.site, call.site.surveyor.survey
    found, names = overview(survey), site.info.class_names
    edges, counts = found.entropy

    def named(number: int) -> dict[str, Any]:
        return {"class": number, "name": class_name(number, names)}

    return as_json(
        {
            "surveyed": {"rows": found.images, "finished": site.surveyor.finished.is_set()},
            "of": min(site.info.num_images, len(survey)),
            "shown": SHOWN,
            "labelled": found.labelled,
            "left_out": left_out(site.info, survey) if found.left_out else None,
            "agree": found.agree,
            "several": found.several,
            "entropy": {"edges": np.round(edges, 4).tolist(), "images": counts.tolist()},
            "classes": [
                {**named(facts.number), **{k: v for k, v in asdict(facts).items() if k != "number"}}
                for facts in class_facts(survey)[: call["limit"]]
            ],
            "confusions": [
                {"label": named(own), "best": named(best), "images": images}
                for own, best, images in confusions(survey, call["limit"])
            ],
            "damaged": [{"row": row, "message": message} for row, message in list(site.surveyor.damaged.items())[:20]],
        }
    )


def _failures(call: Call) -> Response:
    site, start = call.site, call["offset"]
    failed = np.flatnonzero(site.statuses() == Status.FAILED)
    page = failed[start : start + call["limit"]].tolist()
    found = [{"row": row, "id": site.reader.ids[row], "reason": site.reader.error(row)} for row in page]
    return as_json({"total": len(failed), "offset": start, "failures": found})


HEALTHZ = Endpoint(
    "/api/healthz",
    "Whether the server answers, and the rows of its store.",
    _healthz,
    answer=an_object({"status": {"const": "ok"}, "rows": INTEGER}),
)
INFO = Endpoint("/api/info", "The store summed up, as `labelstore info` does.", _info, answer=OBJECT)
SURVEY = Endpoint(
    "/api/survey",
    "Classes, agreement with single labels, confusions, entropy: of the images looked at by now.",
    _survey,
    (Parameter("limit", "integer", "Classes and confusions at most.", 50, least=1, most=_MOST_LISTED),),
    answer=OBJECT,
)
FAILURES = Endpoint("/api/failures", "Rows that failed, with the reasons, page by page.", _failures, PAGE, answer=OBJECT)
