"""The `topk` encoding: pooling against the filled dense map, quantisation bounds, damage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roi_align import torchvision_pool

from labelstore.boxes import check_boxes
from labelstore.class_columns import check_class_map
from labelstore.encodings import find_encoding
from labelstore.errors import ClassMapError
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.encoders.topk import best, dropped_mean
from labelstore.pooling import check_temperature, softmax
from labelstore.records import AnnotatorRecord
from labelstore.schema import NO_CLASS, StoreInfo

TOPK = find_encoding("topk", "test")


def store_info(top_k: int, num_classes: int, size: tuple[int, int], baseline: str = "absent_mean") -> StoreInfo:
    record = AnnotatorRecord("test", "0" * 64, 8, (0.0,) * 3, (1.0,) * 3, "bilinear")
    return StoreInfo(
        num_rows=1,
        num_classes=num_classes,
        top_k=top_k,
        map_size=size,
        shard_size=4,
        id_bytes=1,
        annotator=record,
        baseline=baseline,
    )


def dense_of(classes, scores, num_classes):
    """The dense map that a label map stands for: absent classes at 0."""
    count, _, height, width = classes.shape
    dense = np.zeros((count, num_classes, height, width), np.float64)
    for place in np.ndindex(classes.shape):
        if classes[place] != NO_CLASS:
            dense[place[0], classes[place], place[2], place[3]] = scores[place]
    return dense


@st.composite
def cases(draw):
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    num_classes = draw(st.integers(1, 40))
    top_k = draw(st.integers(1, min(num_classes, 6)))
    scale = draw(st.sampled_from([1e-3, 1.0, 5.0, 30.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(count, num_classes, height, width)).astype(np.float32) * np.float32(scale)
    if draw(st.booleans()):
        logits = np.round(logits)  # ties
    kind = draw(st.sampled_from(["any", "tiny", "whole", "outside", "mirrored"]))
    low = rng.uniform(0, 0.9, (count, 2))
    high = low + rng.uniform(0.01, 0.1, (count, 2)) if kind == "tiny" else rng.uniform(low + 0.05, 1.0)
    boxes = np.concatenate([low, high], axis=1)
    if kind == "whole":
        boxes = np.tile([0.0, 0.0, 1.0, 1.0], (count, 1))
    if kind == "outside":
        boxes += rng.choice([-0.04, 0.04], boxes.shape) - 0.02
        boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 0.005)
        boxes = np.where(boxes[:, 2:].repeat(2, axis=1) <= 0.0, np.array([0, 0, 0.5, 0.5]), boxes)
        boxes = np.where(boxes[:, 2:].min(axis=1, keepdims=True) <= 0.001, np.array([-0.5, -0.5, 0.5, 0.5]), boxes)
    if kind == "mirrored":
        boxes = boxes[:, [2, 1, 0, 3]]
    return logits, top_k, draw(st.sampled_from(["absent_mean", "zero"])), boxes


@settings(max_examples=200, deadline=None)
@given(cases())
def test_pooling_equals_torchvision_on_the_filled_dense_map(case):
    logits, top_k, baseline, boxes = case
    info = store_info(top_k, logits.shape[1], logits.shape[2:], baseline)
    arrays = encode(torch.from_numpy(logits), info)
    assert TOPK.check(arrays, info) is None
    checked = check_boxes(boxes, len(boxes))
    ours = softmax(TOPK.pool(arrays, checked, info))
    label_map = TOPK.decode(arrays, info)
    theirs = torchvision_pool(dense_of(label_map.classes, label_map.scores, info.num_classes), checked)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-5)
    assert ours.dtype == np.float32
    compiled = np.empty_like(ours)
    TOPK.compiled()(arrays, checked, info, 1.0, compiled)
    np.testing.assert_allclose(compiled, theirs, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_map_holds_the_best_classes_within_half_a_step(case):
    logits, top_k, baseline, _ = case
    info = store_info(top_k, logits.shape[1], logits.shape[2:], baseline)
    arrays = encode(torch.from_numpy(logits), info)
    label_map = TOPK.decode(arrays, info)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]  # stable: ties by lower class
    np.testing.assert_array_equal(label_map.classes, order)
    exact = np.take_along_axis(logits.astype(np.float64), order, axis=1)
    if baseline == "absent_mean" and top_k < logits.shape[1]:
        rest = np.take_along_axis(logits.astype(np.float64), np.argsort(-logits, axis=1, kind="stable")[:, top_k:], axis=1)
        exact = exact - rest.mean(axis=1, keepdims=True)
    step = arrays["score_range"][:, 1].astype(np.float64)[:, None, None, None]
    slack = 1e-6 * np.abs(exact).max() + 1e-30
    assert (np.abs(label_map.scores - exact) <= step / 2 + slack).all()
    assert (np.diff(label_map.scores, axis=1) <= 0).all()
    np.testing.assert_allclose(label_map.scores.max(axis=(1, 2, 3)), exact.max(axis=(1, 2, 3)), rtol=1e-6)


def test_ties_go_to_the_lower_class_also_where_zeros_have_signs():
    logits = torch.tensor([-0.0, 0.0, -0.0, 0.0, -1.0, 2.0]).view(1, 6, 1, 1)
    scores, classes = best(logits, 4)
    assert classes.flatten().tolist() == [5, 0, 1, 2]
    assert scores.flatten().tolist() == [2.0, 0.0, 0.0, 0.0]


def test_the_dropped_mean_of_nothing_is_zero():
    logits = torch.randn(2, 4, 3, 3)
    assert not dropped_mean(logits, best(logits, 4)[0]).any()


def test_flat_maps_and_huge_spans_survive():
    info = store_info(2, 3, (2, 2), "zero")
    for values in ([1.5, 1.5, 1.5], [1e37, -1e37, -1e37], [1e-45, 0.0, 0.0], [1.0, 1.0 - 6e-8, 0.0]):
        logits = torch.tensor(values).view(1, 3, 1, 1).expand(1, 3, 2, 2).contiguous()
        arrays = encode(logits, info)
        assert TOPK.check(arrays, info) is None
        scores = TOPK.decode(arrays, info).scores
        np.testing.assert_allclose(scores[0, 0], np.float32(values[0]), rtol=1e-6)
        assert np.isfinite(scores).all()


def test_pooling_ignores_slots_without_a_class():
    info = store_info(3, 5, (1, 1))
    arrays = {
        "classes": np.array([4, NO_CLASS, NO_CLASS], np.uint16).reshape(1, 3, 1, 1),
        "scores": np.array([0, 255, 0], np.uint8).reshape(1, 3, 1, 1),
        "score_range": np.array([[2.0, 0.1]], np.float32),
    }
    assert TOPK.check(arrays, info) is None
    boxes = check_boxes([(0, 0, 1, 1)], 1)
    np.testing.assert_allclose(TOPK.pool(arrays, boxes, info), [[0, 0, 0, 0, 2]], atol=1e-6)
    soft = np.empty((1, 5), np.float32)
    TOPK.compiled()(arrays, boxes, info, 1.0, soft)
    np.testing.assert_allclose(soft, softmax(np.array([[0, 0, 0, 0, 2]], np.float32)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("classes", (1, 2, 1, 1), 7, "expected 0..6, found 7"),
        ("classes", (1, 0, 1, 1), NO_CLASS, "without a best class"),
        ("scores", (1, 1, 0, 0), 255, "add up to at most 255"),
        ("score_range", (1, 0), np.nan, "finite"),
        ("score_range", (1, 1), np.inf, "finite"),
        ("score_range", (1, 1), 1e37, "finite down to"),
        ("score_range", (1, 1), -1.0, "step >= 0"),
    ],
)
def test_impossible_values_are_damage(name, place, value, words):
    info = store_info(3, 7, (2, 2))
    arrays = encode(torch.randn(3, 7, 2, 2), info)
    arrays["scores"][1, :, 0, 0] = 1
    assert TOPK.check(arrays, info) is None
    arrays[name][place] = value
    row, message = TOPK.check(arrays, info)
    assert row == 1
    assert words in message


def test_damage_of_a_single_map_is_found_as_in_a_batch():
    info = store_info(3, 7, (2, 2))
    arrays = {name: part[0] for name, part in encode(torch.randn(1, 7, 2, 2), info).items()}
    assert TOPK.check(arrays, info) is None
    for name, place, value in [("classes", (2, 1, 1), 7), ("scores", (1, 0, 0), 255), ("score_range", (1,), -1.0)]:
        broken = {key: part.copy() for key, part in arrays.items()}
        broken["scores"][:, 0, 0] = 1
        broken[name][place] = value
        assert TOPK.check(broken, info)[0] == 0
        batch = {key: part[np.newaxis] for key, part in broken.items()}
        assert TOPK.check(batch, info) == TOPK.check(broken, info)


def test_a_class_whose_scores_cancel_counts_as_absent_in_both_ways():
    info = store_info(2, 4, (1, 2))
    arrays = {
        "classes": np.array([[[[3, 3]], [[1, 1]]]], np.uint16),
        "scores": np.array([[[[0, 200]], [[100, 0]]]], np.uint8),
        "score_range": np.array([[1.0, 0.01]], np.float32),  # class 3: 1 and -1, class 1: 0 and -1
    }
    boxes = check_boxes([(0, 0, 1, 1)], 1)
    soft = np.empty((1, 4), np.float32)
    TOPK.compiled()(arrays, boxes, info, 1.0, soft)
    np.testing.assert_allclose(soft, softmax(np.array([[0, -0.5, 0, 0]], np.float32)), atol=1e-6)
    np.testing.assert_allclose(softmax(TOPK.pool(arrays, boxes, info)), soft, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6])
def test_temperature_in_both_ways(temperature, scale):
    info = store_info(2, 6, (2, 3))
    arrays = encode(scale * torch.randn(4, 6, 2, 3, generator=torch.Generator().manual_seed(0)), info)
    boxes = check_boxes([(0, 0, 1, 1), (0, 0, 0.1, 0.1), (0.2, 0.4, 0.9, 0.7), (0.5, 0, 0.6, 1)], 4)
    logits = TOPK.pool(arrays, boxes, info).copy()
    theirs = torch.softmax(torch.from_numpy(logits).double() / temperature, dim=1).numpy()
    np.testing.assert_allclose(
        softmax(logits, np.float32(temperature)), theirs, atol=1e-6 + 2e-4 * min(scale / temperature, 1e2)
    )
    soft = np.empty((4, 6), np.float32)
    TOPK.compiled()(arrays, boxes, info, temperature, soft)
    np.testing.assert_allclose(soft, theirs, atol=1e-6 + 2e-4 * min(scale / temperature, 1e2))


def test_softmax_of_extremes():
    logits = np.array([[1.0, 3.0]], np.float32)
    np.testing.assert_allclose(softmax(logits, 2.0), torch.softmax(torch.tensor([[0.5, 1.5]]), dim=1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(softmax(np.array([[3e38, -3e38]], np.float32), 1e-3), [[1.0, 0.0]])
    np.testing.assert_allclose(softmax(np.array([[-3e38, -3e38]], np.float32)), [[0.5, 0.5]])
    np.testing.assert_allclose(softmax(np.full((1, 65535), 59.0, np.float32)).sum(), 1.0, rtol=1e-4)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "hot"])
def test_temperatures_that_are_none(wrong):
    with pytest.raises(ValueError, match="temperature"):
        check_temperature(wrong)


def test_class_maps():
    assert check_class_map(None, 5) is None
    assert check_class_map([4, 0, 0], 5).classes.tolist() == [4, 0, 0]
    for wrong in ([5], [-1], [[[1]]], [], [[]], [[1], []], [[-1]], [[1, 5]], [[1, -2]], [0.5], ["a"], 3):
        with pytest.raises(ClassMapError, match="class_map"):
            check_class_map(wrong, 5)


@pytest.mark.parametrize("height", [-3000.0, 3000.0])
@pytest.mark.parametrize("top_k", [5, 2])
def test_logits_far_from_what_absent_classes_count_as(height, top_k):
    logits = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0)) + height
    info, boxes = store_info(top_k, 5, (4, 4), "zero"), check_boxes([(0.1, 0.2, 0.8, 0.9)] * 2, 2)
    arrays = encode(logits, info)
    soft = softmax(TOPK.pool(arrays, boxes, info))
    compiled = np.empty_like(soft)
    TOPK.compiled()(arrays, boxes, info, 1.0, compiled)
    np.testing.assert_allclose(compiled, soft, atol=1e-3)  # NumPy's logits are float32
    np.testing.assert_allclose(compiled.sum(axis=1), 1, atol=1e-5)
