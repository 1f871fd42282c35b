"""A store's labels, or a classifier's, held against what images show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import ClassMap
from labelstore.errors import ImagesError, OptionError
from labelstore.evaluation.metrics import MultiLabelCounts, Report
from labelstore.evaluation.multilabels import MultiLabels
from labelstore.evaluation.predictions import Predictions
from labelstore.evaluation.scores import Batch, score_batches
from labelstore.own_labels import own_labels
from labelstore.reader import LabelMapReader
from labelstore.schema import Status

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_BATCH = 256
_LEAST = 1e-12


@dataclass(frozen=True)
class Distance:
    """Of a classifier's probabilities to the store's labels of whole images: means over images.

    ``same_best``: the share with the same best class. ``kl``: of the store's label from the classifier's, in nats.
    """

    same_best: float
    l1: float
    kl: float


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Parameters
    ----------
    multi
        Against the multi-labels.
    own_top1
        Share of images whose best class is the label that they came with (their folder); None where they have none.
    own_present
        Share of images whose own label is among the multi-labels: how right single labels are by that measure.
    left_out
        Images with multi-labels that have no score: not annotated, or not predicted.
    distance
        Of predictions to the store; None for the store itself.
    """

    multi: Report
    own_top1: float | None
    own_present: float | None
    left_out: int
    distance: Distance | None = None


def evaluate_store(
    reader: LabelMapReader,
    truth: MultiLabels,
    thresholds: Sequence[float] = THRESHOLDS,
    by: str = "image",
    class_map: ClassMap | None = None,
) -> Evaluation:
    """Hold a store's labels of images against multi-labels.

    Parameters
    ----------
    by
        What a class's score is: see `score_batches`.
    class_map
        Which classes the images' own labels are: see `own_labels`.

    Raises
    ------
    ImagesError
        None of the images has a label map.
    """
    rows = truth.rows()
    done = rows[reader.status(rows) == Status.DONE]
    return _evaluate(reader, truth, done, score_batches(reader, done, by), thresholds, class_map)


def evaluate_predictions(
    reader: LabelMapReader,
    given: Predictions,
    truth: MultiLabels,
    thresholds: Sequence[float] = THRESHOLDS,
    class_map: ClassMap | None = None,
) -> Evaluation:
    """Hold a classifier's probabilities against multi-labels, and against the store's labels of whole images.

    ``class_map``: which classes the images' own labels are, see `own_labels`.

    Raises
    ------
    ImagesError
        None of the images has multi-labels.
    """
    places = np.flatnonzero(np.isin(given.rows, truth.rows()))
    rows = given.rows[places]

    def batches() -> Iterable[Batch]:
        for start in range(0, len(rows), _BATCH):
            yield rows[start : start + _BATCH], given.probabilities[places[start : start + _BATCH]]

    return _evaluate(reader, truth, rows, batches(), thresholds, class_map, _distance(reader, given))


def _evaluate(
    reader: LabelMapReader,
    truth: MultiLabels,
    rows: NDArray[np.int64],
    batches: Iterable[Batch],
    thresholds: Sequence[float],
    class_map: ClassMap | None,
    distance: Distance | None = None,
) -> Evaluation:
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise OptionError(f"thresholds: expected numbers above 0 and at most 1, got {list(thresholds)}")
    if not len(rows):
        raise ImagesError(f"none of the {len(truth.classes)} images with classes has a label map and a prediction")
    counts, own = MultiLabelCounts(thresholds), _OwnLabels(reader, class_map)
    for part, scores in batches:
        present = truth.table(part.tolist(), reader.num_classes)
        counts.add(scores, present)
        own.add(part, scores, present)
    return Evaluation(counts.report(), own.top1, own.present, len(truth.classes) - len(rows), distance)


class _OwnLabels:
    """How often images' own labels are the best class, and among the multi-labels."""

    def __init__(self, reader: LabelMapReader, class_map: ClassMap | None) -> None:
        self._labels, self._targets = own_labels(reader.info, class_map), reader.targets
        self._images = self._best = self._present = 0

    def add(self, rows: NDArray[np.int64], scores: NDArray[np.floating], present: NDArray[np.bool_]) -> None:
        if self._labels is None:
            return
        own = self._labels.of(self._targets[rows])
        places = np.flatnonzero(own >= 0)
        best = self._labels.merge(scores[places]).argmax(axis=1)
        self._images += len(places)
        self._best += int((best == own[places]).sum())
        self._present += int(self._labels.merge(present[places])[np.arange(len(places)), own[places]].sum())

    @property
    def top1(self) -> float | None:
        return self._best / self._images if self._images else None

    @property
    def present(self) -> float | None:
        return self._present / self._images if self._images else None


def _distance(reader: LabelMapReader, given: Predictions) -> Distance | None:
    done = np.flatnonzero(reader.status(given.rows) == Status.DONE)
    if not len(done):
        return None
    sums = np.zeros(3)
    start = 0
    for part, stored in score_batches(reader, given.rows[done], "image"):
        theirs = given.probabilities[done[start : start + len(part)]]
        start += len(part)
        logs = np.log(np.maximum(stored, _LEAST)) - np.log(np.maximum(theirs, _LEAST))
        sums += (stored.argmax(1) == theirs.argmax(1)).sum(), np.abs(stored - theirs).sum(), (stored * logs).sum()
    return Distance(*np.maximum(sums / len(done), 0).tolist())  # of equal labels the divergence is 0, but for rounding
