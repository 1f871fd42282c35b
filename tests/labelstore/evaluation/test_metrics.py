"""Precision, recall and F1 are those of the definition, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore.evaluation.metrics import MultiLabelCounts


def brute_force(scores, present, threshold):
    chosen = {(i, c) for i, row in enumerate(scores) for c, score in enumerate(row) if score >= threshold}
    there = {(i, c) for i, row in enumerate(present) for c, is_there in enumerate(row) if is_there}
    precision = len(chosen & there) / len(chosen) if chosen else None
    recall = len(chosen & there) / len(there)
    f1 = 2 * precision * recall / (precision + recall) if precision else 0.0
    return precision, recall, f1


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 6), st.integers(1, 4))
def test_every_figure_is_that_of_all_pairs(seed, images, classes, batch):
    rng = np.random.default_rng(seed)
    scores = rng.random((images, classes)).astype(np.float32)
    present = rng.random((images, classes)) < 0.4
    present[np.arange(images), rng.integers(classes, size=images)] = True
    counts = MultiLabelCounts([0.5, 0.1, 0.5])
    for start in range(0, images, batch):
        counts.add(scores[start : start + batch], present[start : start + batch])
    found = counts.report()
    assert (found.images, found.positives) == (images, present.sum())
    assert found.top1 == pytest.approx(np.mean([present[i, scores[i].argmax()] for i in range(images)]))
    assert [at.threshold for at in found.thresholds] == [0.1, 0.5]
    for at in found.thresholds:
        precision, recall, f1 = brute_force(scores, present, at.threshold)
        assert at.precision == (None if precision is None else pytest.approx(precision))
        assert (at.recall, at.f1) == (pytest.approx(recall), pytest.approx(f1))
    assert found.best.f1 == max(at.f1 for at in found.thresholds)
