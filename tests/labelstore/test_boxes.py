"""Boxes and RoIAlign weights, held against torchvision's operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from labelstore import BoxError
from labelstore.boxes import box_weights, check_boxes

edges = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0, 1e-9, 1 - 1e-9]))
boxes_strategy = st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=6)


def inside(box: tuple[float, ...]) -> bool:
    x1, y1, x2, y2 = np.clip(box, 0, 1)
    return x1 != x2 and y1 != y2


@settings(max_examples=300, deadline=None)
@given(boxes_strategy, st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_weights_pool_as_torchvision_does(boxes, height, width, seed):
    boxes = [box for box in boxes if inside(box)]
    if not boxes:
        return
    checked = check_boxes(boxes, len(boxes))
    dense = np.random.default_rng(seed).normal(size=(len(boxes), 3, height, width))
    wy, wx = box_weights(checked, (height, width))
    ours = np.einsum("bh,bw,bchw->bc", wy, wx, dense)
    scaled = checked * [width, height, width, height] - 0.5
    rois = torch.from_numpy(np.concatenate([np.arange(len(boxes))[:, None], scaled], axis=1))
    theirs = roi_align(torch.from_numpy(dense), rois, (1, 1), sampling_ratio=-1, aligned=False)[:, :, 0, 0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@given(boxes_strategy, st.integers(1, 30))
def test_weights_sum_to_one(boxes, size):
    boxes = [box for box in boxes if inside(box)]
    for weights in box_weights(check_boxes(boxes, len(boxes)) if boxes else np.empty((0, 4)), (size, size)):
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
        assert (weights >= 0).all()


def test_the_whole_image_weighs_all_locations_alike():
    for weights in box_weights(check_boxes([(0, 0, 1, 1)], 1), (7, 12)):
        np.testing.assert_allclose(weights, 1 / weights.shape[1])


def test_x_is_across_and_y_is_down():
    wy, wx = box_weights(check_boxes([(0.0, 0.5, 0.25, 1.0)], 1), (4, 8))
    assert np.flatnonzero(wx[0] > 0).tolist() == [0, 1]
    assert np.flatnonzero(wy[0] > 0).tolist() == [2, 3]


def test_mirrored_boxes_are_the_same_region():
    np.testing.assert_array_equal(check_boxes([(0.9, 0.8, 0.1, 0.2)], 1), check_boxes([(0.1, 0.2, 0.9, 0.8)], 1))


def test_boxes_are_clipped():
    np.testing.assert_array_equal(check_boxes([(-1, 0.5, 0.5, 7)], 1), [(0.0, 0.5, 0.5, 1.0)])


@pytest.mark.parametrize(
    ("boxes", "count", "words"),
    [
        ([(0, 0, 1, 1)], 2, r"expected shape \(2, 4\).*got \(1, 4\)"),
        ([0, 0, 1, 1], 1, "expected shape"),
        ([[0, 0, 1]], 1, "expected shape"),
        ("whole", 1, "expected numbers"),
        ([[0, 0, 1], [1]], 2, "expected numbers"),
        ([(0, 0, float("nan"), 1)], 1, r"boxes\[0\].*finite"),
        ([(0, 0, 1, 1), (0, 0, float("inf"), 1)], 2, r"boxes\[1\]"),
        ([(0.5, 0, 0.5, 1)], 1, "x1 != x2"),
        ([(0, 1.0, 1, 2.0)], 1, "area inside"),
        ([(-2, 0, -1, 1)], 1, "area inside"),
    ],
)
def test_bad_boxes_are_refused(boxes, count, words):
    with pytest.raises(BoxError, match=words) as caught:
        check_boxes(boxes, count)
    assert isinstance(caught.value, ValueError)
