"""Images whose single label is likely wrong: the map's evidence against it, ranked.

Confident learning (Northcutt, Jiang and Chuang 2021, section 3), with the soft label of the whole image as the model's
probabilities: a class's threshold is the mean probability that images with this label have for it; an image is likely wrong
where another class is the best one and reaches its own threshold. The rank goes by the margin between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.survey import Survey


@dataclass(frozen=True)
class Suspects:
    """Images whose best class is not their single label's, the largest margin first.

    Attributes
    ----------
    rows
        int64 ``[n]``.
    margins
        float32 ``[n]``, 0 to 1: the best class's probability less that of the single label.
    likely
        bool ``[n]``: whether the best class reaches its threshold.
    """

    rows: NDArray[np.int64]
    margins: NDArray[np.float32]
    likely: NDArray[np.bool_]


def find_suspects(survey: Survey) -> Suspects:
    """Rank the images whose map disagrees with their single label; likely ones first, each part by margin."""
    rows = np.flatnonzero(survey.disagrees)
    best, probability = survey.best[rows].astype(np.int64), survey.best_probability[rows].astype(np.float32)
    margins = probability - survey.own_probability[rows].astype(np.float32)
    likely = probability >= class_thresholds(survey)[best]
    order = np.lexsort((rows, -margins, ~likely))
    return Suspects(rows[order], margins[order], likely[order])


def class_thresholds(survey: Survey) -> NDArray[np.float64]:
    """Return every class's threshold, float64 ``[C]``; of classes that are no image's label the mean of all images' own."""
    labelled = np.flatnonzero(survey.labelled)
    own = survey.own_probability[labelled].astype(np.float64)
    classes = survey.own[labelled]
    counts = np.bincount(classes, minlength=survey.num_classes)
    sums = np.bincount(classes, own, minlength=survey.num_classes)
    mean = own.mean() if len(own) else 1.0
    return np.where(counts > 0, sums / np.maximum(counts, 1), mean)
