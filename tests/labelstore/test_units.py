"""Units of scores: logits pass, what a softmax, sigmoid or log-softmax makes of them never passes unnoticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelstore.units import LOG_SOFTMAX, LOGITS, SIGMOID, SOFTMAX, UNCLEAR, DenseUnit, ListedUnit

NOT_REFUSED = {LOGITS, UNCLEAR, LOG_SOFTMAX}
"""Dense log-probabilities are right as they are."""


@st.composite
def logits(draw: st.DrawFn) -> NDArray[np.float32]:
    """Scores of networks from next to constant (fresh weights) to very sure of themselves, ``[n, C, locations]``."""
    classes = draw(st.sampled_from([2, 3, 5, 10, 19, 20, 37, 100, 1000]))
    scale, varies = 10.0 ** draw(st.floats(-3, 1.3)), 10.0 ** draw(st.floats(-3, 0.5))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    usual = numbers.normal(size=(1, classes, 1)) * scale
    found = usual + scale * varies * numbers.normal(size=(2, classes, 49))
    offset = draw(st.sampled_from([0.0, 0.0, -3.0, 5.0])) if scale >= 1 else 0.0  # a softmax sees none; fresh heads have none
    return np.asarray(found + offset * scale, np.float32)


def softmax(values: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-values.clip(-60, 60)))


def dense(values: NDArray[Any], parts: int = 1) -> str:
    test = DenseUnit()
    for part in np.array_split(values, parts):
        test.add(part)
    return test.verdict()


def listed(values: NDArray[Any], top_k: int) -> str:
    test = ListedUnit(values.shape[1])
    test.add(-np.sort(-values, axis=1)[:, :top_k])
    return test.verdict()


@given(logits(), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_logits_are_never_refused(values: NDArray[np.float32], top_k: int) -> None:
    assert dense(values) in NOT_REFUSED
    assert dense(values, parts=2) == dense(values)
    assert listed(values, min(top_k, values.shape[1] - 1)) in {LOGITS, UNCLEAR}


@given(logits(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_probabilities_never_pass_unnoticed(values: NDArray[np.float32], dtype: type, top_k: int) -> None:
    shares = softmax(values.astype(np.float64))
    assert dense(shares.astype(dtype)) == SOFTMAX
    assert listed(shares.astype(dtype), min(top_k, values.shape[1])) in {SOFTMAX, UNCLEAR}
    assert dense(np.log(np.maximum(shares, 1e-30)).astype(dtype)) == LOG_SOFTMAX
    assert listed(np.log(np.maximum(shares, 1e-30)).astype(dtype), min(top_k, values.shape[1])) in {LOG_SOFTMAX, UNCLEAR}
    each = sigmoid(values).astype(dtype)
    if np.count_nonzero(each) > 0.95 * each.size:  # of very low ones nothing is left in float16
        assert dense(each) in {SIGMOID, UNCLEAR, SOFTMAX}
        assert values.shape[1] < 20 or dense(each) in {SIGMOID, SOFTMAX}


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_sure_annotators_probabilities_are_recognised_by_the_best_alone(classes: int) -> None:
    numbers = np.random.default_rng(0)
    shares = softmax(numbers.normal(size=(8, classes, 49)) * 6)
    assert listed(shares, min(5, classes)) == SOFTMAX
    assert listed(np.log(shares), min(5, classes)) == LOG_SOFTMAX


def test_what_says_nothing_is_taken_for_logits() -> None:
    assert DenseUnit().verdict() == ListedUnit(10).verdict() == LOGITS
    assert dense(np.zeros((2, 1000, 9), np.float32)) == LOGITS  # a head of zeros
    assert dense(np.full((2, 1000, 9), np.nan)) == LOGITS
    assert listed(np.zeros((2, 10, 9)), 5) == LOGITS


def test_maps_that_are_not_finite_do_not_hide_the_others() -> None:
    shares = softmax(np.random.default_rng(0).normal(size=(3, 10, 9)))
    shares[1, 4, 2] = np.nan
    assert dense(shares) == SOFTMAX


def test_what_a_relu_has_cut_off_is_not_taken_for_a_sigmoid() -> None:
    cut = np.maximum(0.1 * np.random.default_rng(0).normal(size=(2, 1000, 9)), 0)
    assert dense(cut) == UNCLEAR


def test_few_values_of_logits_by_chance_in_range_are_unclear() -> None:
    assert dense(np.array([[[0.2], [0.3]]])) == UNCLEAR
    assert dense(np.full((1, 19, 4), 0.5)) == UNCLEAR
    assert dense(np.full((1, 20, 4), 0.5)) == SIGMOID
