"""All that a report says, out of one pass over the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import ClassMap
from labelstore.cli.reporting.photo_sizes import photo_aspects
from labelstore.cli.survey_cache import SurveyCache
from labelstore.crop_risk import CropRisk, crop_risk, stored_aspects
from labelstore.errors import ImagesError
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.photographs import Photographs
from labelstore.reader import LabelMapReader
from labelstore.schema import Status
from labelstore.statistics import ClassFacts, Overview, class_facts, confusions, overview, together
from labelstore.survey import Survey
from labelstore.suspects import Suspects, find_suspects

_BATCH = 256
PAIRS = 20


@dataclass(frozen=True)
class Findings:
    """What the maps say of a data set; see `labelstore.statistics`, `labelstore.suspects` and `labelstore.crop_risk`."""

    store: str
    reader: LabelMapReader
    survey: Survey
    overview: Overview
    classes: list[ClassFacts]
    confusions: list[tuple[int, int, int]]
    together: list[tuple[int, int, int]]
    suspects: Suspects
    risk: CropRisk


def gather(store: str, observer: Observer, class_map: ClassMap | None = None, images: str | None = None) -> Findings:
    """Look at all maps of a store; ``class_map``: see `own_labels`; ``images``: see `Photographs`.

    Raises
    ------
    ImagesError
        The store holds no map yet.
    """
    reader = LabelMapReader(store)
    survey = Survey(reader, class_map)
    cache = SurveyCache(store, reader, survey)
    cache.apply()
    rows = np.flatnonzero((reader.status()[: len(survey)] == Status.DONE) & ~survey.known)
    observer.plan(len(rows), 0)
    for start in range(0, len(rows), _BATCH):
        survey.add(reader, rows[start : start + _BATCH])
        observer.rows(min(start + _BATCH, len(rows)), 0)
    cache.save()
    photographs = Photographs(reader.info, images)

    def aspects(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = stored_aspects(reader, rows)
        unknown = np.flatnonzero(np.isnan(found))
        found[unknown] = photo_aspects(photographs, reader.ids, rows[unknown].tolist(), reader.info.exif)
        return found

    risk = crop_risk(reader, survey, aspects=aspects)
    if risk is None:
        raise ImagesError(f"{store}: expected label maps to report on, found none that is done; run annotate first")
    return Findings(
        store=store,
        reader=reader,
        survey=survey,
        overview=overview(survey),
        classes=class_facts(survey),
        confusions=confusions(survey, PAIRS),
        together=together(survey, most=PAIRS),
        suspects=find_suspects(survey),
        risk=risk,
    )
