"""Precision, recall and F1 over thresholds, and how often the best class is right, added up batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AtThreshold:
    """Classes with a score of at least ``threshold`` against those that are there, over all pairs of image and class.

    ``precision`` is None where no score is so high. ``predicted`` are pairs.
    """

    threshold: float
    precision: float | None
    recall: float
    f1: float
    predicted: int


@dataclass(frozen=True)
class Report:
    """``images`` that were looked at, ``positives`` (pairs of an image and a class that it shows), and how right scores are.

    ``top1`` is the share of images whose best class is one that they show (ReaL accuracy, Beyer et al. 2020).
    """

    images: int
    positives: int
    top1: float
    thresholds: tuple[AtThreshold, ...]

    @property
    def best(self) -> AtThreshold:
        """The threshold of the highest F1."""
        return max(self.thresholds, key=lambda at: at.f1)


class MultiLabelCounts:
    """Counts of hits over thresholds."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        self._thresholds = np.array(sorted(set(thresholds)))
        self._predicted = np.zeros(len(self._thresholds), np.int64)
        self._hits = np.zeros_like(self._predicted)
        self._images = self._positives = self._best_right = 0

    def add(self, scores: NDArray[np.floating], present: NDArray[np.bool_]) -> None:
        """Count a batch: scores ``[B, C]``, and which classes are there, ``[B, C]``."""
        for place, threshold in enumerate(self._thresholds):
            chosen = scores >= threshold
            self._predicted[place] += np.count_nonzero(chosen)
            self._hits[place] += np.count_nonzero(chosen & present)
        self._images += len(scores)
        self._positives += int(np.count_nonzero(present))
        self._best_right += int(present[np.arange(len(scores)), scores.argmax(axis=1)].sum())

    def report(self) -> Report:
        """Return what was counted; of at least one image."""
        found = zip(self._thresholds.tolist(), self._hits.tolist(), self._predicted.tolist(), strict=True)
        lines = tuple(
            AtThreshold(
                threshold,
                hits / predicted if predicted else None,
                hits / self._positives,
                2 * hits / (predicted + self._positives),
                predicted,
            )
            for threshold, hits, predicted in found
        )
        return Report(self._images, self._positives, self._best_right / self._images, lines)
