"""How often a random training crop's label is not the image's single one: what ReLabel is about, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import check_boxes
from labelstore.random_crops import random_boxes
from labelstore.reader import LabelMapReader
from labelstore.survey import Survey

IMAGES, CROPS = 2048, 16
ASPECT = 4 / 3
"""Of images whose sizes are not known: that of most photographs."""
Aspects = Callable[[NDArray[np.int64]], NDArray[np.float64]]
AREAS = (0.08, 0.2, 0.4, 0.6, 0.8, 1.0)
_BATCH = 64


@dataclass(frozen=True)
class CropRisk:
    """Shares of random crops, each 0 to 1.

    Attributes
    ----------
    images, crops
        How many were drawn.
    sized
        Of how many images the shape was known; of the others crops are drawn as of one of 4:3.
    labelled_images, labelled_crops
        How many of them have a single label that can be held against a map: see `labelstore.survey.Survey.labelled`.
    from_whole
        Crops whose best class is not that of the whole image.
    from_label
        Crops whose best class is not that of the image's single label, of ``labelled_crops``; None if there are none.
    by_area
        ``from_label`` (else ``from_whole``) of crops whose area lies between two of `AREAS`; NaN where there are none.
    """

    images: int
    crops: int
    sized: int
    labelled_images: int
    labelled_crops: int
    from_whole: float
    from_label: float | None
    by_area: tuple[float, ...]


def crop_risk(
    reader: LabelMapReader,
    survey: Survey,
    images: int = IMAGES,
    crops: int = CROPS,
    seed: int = 0,
    aspects: Aspects | None = None,
) -> CropRisk | None:
    """Draw random crops (RandomResizedCrop) of known images, evenly spread over the store; None if none is known.

    Parameters
    ----------
    aspects
        From rows ``[n]`` to the images' widths over their heights, float64 ``[n]``, NaN where that is not known: `ASPECT`
        there, and everywhere without it.
    """
    rows = np.flatnonzero(survey.known)
    if len(rows) > images:
        rows = rows[np.linspace(0, len(rows) - 1, images).round().astype(np.int64)]
    if not len(rows):
        return None
    boxes, sized = _boxes(rows, crops, seed, aspects)
    each = np.repeat(rows, crops)
    best = np.empty(len(each), np.int64)
    for start in range(0, len(each), _BATCH * crops):
        part = slice(start, start + _BATCH * crops)
        best[part] = survey.merge(reader.pool(each[part], boxes[part])).argmax(axis=1)
    whole, own = best != survey.best[each], best != survey.own[each]
    labelled = survey.labelled[each]
    differs = own if labelled.any() else whole
    counted = labelled if labelled.any() else np.ones(len(each), np.bool_)
    return CropRisk(
        images=len(rows),
        crops=len(each),
        sized=sized,
        labelled_images=int(labelled.sum()) // crops,
        labelled_crops=int(labelled.sum()),
        from_whole=float(whole.mean()),
        from_label=float(own[labelled].mean()) if labelled.any() else None,
        by_area=_by_area(boxes[counted], differs[counted]),
    )


def stored_aspects(reader: LabelMapReader, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the width over the height of rows' images by the sizes that the store keeps; NaN where it keeps none."""
    if not reader.info.image_sizes:
        return np.full(len(rows), np.nan)
    width, height = reader.image_size(rows).T.astype(np.float64)
    found = np.full(len(rows), np.nan)
    np.divide(width, height, out=found, where=(width > 0) & (height > 0))
    return found


def _boxes(rows: NDArray[np.int64], crops: int, seed: int, aspects: Aspects | None) -> tuple[NDArray[np.float64], int]:
    """Draw the crops of all images, and count the images whose shape is known."""
    random = np.random.default_rng(seed)
    if aspects is None:
        return random_boxes(random, len(rows) * crops, ASPECT), 0
    known = aspects(rows)
    shapes = np.where(np.isnan(known), ASPECT, known).tolist()
    return np.concatenate([random_boxes(random, crops, aspect) for aspect in shapes]), int((~np.isnan(known)).sum())


def _by_area(boxes: NDArray[np.float64], differs: NDArray[np.bool_]) -> tuple[float, ...]:
    x1, y1, x2, y2 = check_boxes(boxes, len(boxes)).T
    places = np.digitize((x2 - x1) * (y2 - y1), AREAS[1:-1])
    shares = [differs[places == place] for place in range(len(AREAS) - 1)]
    return tuple(float(part.mean()) if len(part) else float("nan") for part in shares)
