"""The `spectral` encoding: pooling against the map that its recipe gives, bounds, odd maps, damage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from roi_align import torchvision_pool

from labelstore.boxes import check_boxes
from labelstore.encodings import find_encoding
from labelstore.encodings.spectral import record_of, split
from labelstore.pipelines.distance import label_distances
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.encoders.spectral import factor, pack
from labelstore.pipelines.encoders.training_crops import location_weights, training_crops
from labelstore.pooling import softmax
from labelstore.records import AnnotatorRecord, SpectralShape
from labelstore.schema import NO_CLASS, StoreInfo

SPECTRAL = find_encoding("spectral", "test")
BASELINES = ("absent_mass", "absent_mean", "zero")
RECORD = AnnotatorRecord("test", "0" * 64, 8, (0.0,) * 3, (1.0,) * 3, "bilinear")


def store_info(shape: SpectralShape, num_classes: int, size: tuple[int, int], baseline: str = "absent_mass") -> StoreInfo:
    return StoreInfo(
        num_rows=1,
        num_classes=num_classes,
        top_k=min(3, num_classes),
        map_size=size,
        shard_size=4,
        id_bytes=1,
        annotator=RECORD,
        encoding="spectral",
        spectral=shape,
        baseline=baseline,
    )


def dense_of(records: np.ndarray, info: StoreInfo) -> np.ndarray:
    """The dense map [B, C, H, W] that records stand for: docs/format.md, entry by entry."""
    shape, (height, width) = info.spectral, info.map_size
    dense = np.zeros((len(records), info.num_classes, height, width))
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    for row, record in enumerate(records.view(record_of(info))[:, 0]):
        most, mean_step, weight_step = record["scales"].astype(np.float64)
        for chosen in range(info.num_classes if shape.tail_bits else 0):
            bit = chosen * shape.tail_bits
            dense[row, chosen] = record["rest"][record["tail"][bit // 8] >> bit % 8 & 2**shape.tail_bits - 1]
        for rank, chosen in enumerate(record["classes"]):
            if chosen == NO_CLASS:
                continue
            dense[row, chosen] = most - mean_step * record["means"][rank]
            for pattern in range(shape.patterns if rank < shape.shaped else 0):
                for u, v in np.ndindex(*shape.frequencies):
                    wave = np.cos(np.pi * u * y / height) * np.cos(np.pi * v * x / width)
                    share = weight_step * record["weights"][rank, pattern] * record["patterns"][pattern, u, v] / 127
                    dense[row, chosen] += share * wave
    return dense


@st.composite
def cases(draw):
    count, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    num_classes = draw(st.integers(1, 30))
    classes = draw(st.integers(1, min(num_classes, 8)))
    down, across = draw(st.integers(1, min(height, 5))), draw(st.integers(1, min(width, 5)))
    patterns = draw(st.integers(0, min(down * across - 1, 6)))
    shape = SpectralShape(classes, draw(st.integers(0, classes)), patterns, (down, across), draw(st.integers(0, 2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-3, 1.0, 5.0, 30.0]))
    logits = rng.normal(size=(count, num_classes, height, width)).astype(np.float32) * np.float32(scale)
    logits += rng.normal(size=(count, num_classes, 1, 1)).astype(np.float32) * np.float32(scale)
    kind = draw(st.sampled_from(["any", "tiny", "whole", "outside", "mirrored"]))
    low = rng.uniform(0, 0.9, (count, 2))
    high = low + rng.uniform(0.01, 0.1, (count, 2)) if kind == "tiny" else rng.uniform(low + 0.05, 1.0)
    boxes = np.concatenate([low, high], axis=1)
    if kind == "whole":
        boxes = np.tile([0.0, 0.0, 1.0, 1.0], (count, 1))
    if kind == "outside":
        boxes += [-0.3, -0.3, 0.3, 0.3]
    if kind == "mirrored":
        boxes = boxes[:, [2, 1, 0, 3]]
    return torch.from_numpy(logits), store_info(shape, num_classes, (height, width), draw(st.sampled_from(BASELINES))), boxes


@settings(max_examples=200, deadline=None)
@given(cases())
def test_pooling_equals_torchvision_on_the_map_of_the_recipe(case):
    logits, info, boxes = case
    arrays = encode(logits, info)
    assert SPECTRAL.check(arrays, info) is None
    checked = check_boxes(boxes, len(boxes))
    theirs = torchvision_pool(dense_of(arrays["spectra"], info), checked)
    ours = softmax(SPECTRAL.pool(arrays, checked, info))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-5)
    assert ours.dtype == np.float32
    compiled = np.empty_like(ours)
    SPECTRAL.compiled()(arrays, checked, info, 1.0, compiled)
    np.testing.assert_allclose(compiled, theirs, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_map_that_is_read_holds_the_best_of_the_named_classes(case):
    logits, info, _ = case
    arrays = encode(logits, info)
    found, dense = SPECTRAL.decode(arrays, info), dense_of(arrays["spectra"], info)
    named = split(arrays["spectra"], info)["classes"]
    for row in range(len(logits)):
        mine = np.sort(named[row][named[row] != NO_CLASS]).astype(int)
        scores = dense[row, mine]
        kept = min(info.top_k, len(mine))
        best = -np.sort(-scores, axis=0)[:kept]
        np.testing.assert_allclose(found.scores[row, :kept], best, rtol=1e-5, atol=1e-5)
        taken = np.take_along_axis(dense[row], found.classes[row, :kept].astype(np.intp), axis=0)
        np.testing.assert_allclose(taken, best, rtol=1e-5, atol=1e-5)
        assert (found.classes[row, kept:] == NO_CLASS).all()
        assert not found.scores[row, kept:].any()
    one = SPECTRAL.decode({"spectra": arrays["spectra"][0]}, info)
    np.testing.assert_array_equal(one.classes, found.classes[0])
    np.testing.assert_array_equal(one.scores, found.scores[0])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_rounding_costs_at_most_half_a_step_of_each_part(case):
    """docs/format.md: mean_step / 2 + weight_step / 2 * sum over r of |pattern r|, of every logit at every location."""
    logits, info, _ = case
    shape, (height, width) = info.spectral, info.map_size
    factors = factor(logits, shape, info.baseline)
    records = pack(factors, info)
    fields = split(records, info)
    y, x = (np.arange(size)[:, None] + 0.5 for size in (height, width))
    down, across = (np.cos(np.pi * np.arange(k) * at / len(at)) for k, at in zip(shape.frequencies, (y, x), strict=True))
    waves = np.einsum("yu,xv->uvyx", down, across).reshape(-1, height, width)
    patterns = np.einsum("brf,fyx->bryx", factors.patterns.numpy() / 127, waves)
    varying = np.einsum("bpr,bryx->bpyx", factors.weights.numpy(), patterns)
    # what rounded weights add to a class's mean, its kept mean makes up for
    moved = ((fields["weights"] * fields["scales"][:, 2, None, None]) @ factors.offset.numpy()[:, :, None])[:, :, 0]
    means = factors.means.numpy().copy()
    means[:, : shape.shaped] -= moved
    exact = np.zeros((*means.shape, height, width)) + means[:, :, None, None]
    exact[:, : shape.shaped] += varying
    dense = dense_of(records, info)
    stored = np.take_along_axis(dense, fields["classes"].astype(np.intp)[:, :, None, None], axis=1)
    steps = fields["scales"].astype(float)[:, 1:, None, None]
    bound = np.zeros_like(exact) + steps[:, :1] / 2
    bound[:, : shape.shaped] += (steps[:, 1] / 2 * np.abs(patterns).sum(axis=1))[:, None]
    slack = 1e-5 * np.abs(exact).max() + 1e-30
    assert (np.abs(stored - exact) <= bound + slack).all()


def test_with_all_there_is_to_keep_labels_are_the_annotators():
    logits = torch.randn(4, 6, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
    info = store_info(SpectralShape(6, 6, 19, (4, 5)), 6, (4, 5))
    l1, kl, agreement, _ = label_distances(logits.numpy(), encode(logits, info), info).mean(axis=1)
    assert l1 < 0.03
    assert kl < 1e-3
    assert agreement > 0.95


@pytest.mark.parametrize("baseline", ["absent_mass", "absent_mean"])
def test_a_constant_added_to_all_logits_changes_no_label(baseline):
    logits = torch.randn(8, 50, 7, 7, generator=torch.Generator().manual_seed(0)) * 3
    info = store_info(SpectralShape(8, 4, 3, (3, 3)), 50, (7, 7), baseline)
    boxes = check_boxes(training_crops(8), 8)
    one, other = (softmax(SPECTRAL.pool(encode(logits + shift, info), boxes, info)) for shift in (0.0, -64.0))
    np.testing.assert_allclose(one, other, atol=2e-3)  # a level may be rounded the other way


def test_absent_mass_gives_absent_classes_their_probability_together():
    logits = torch.randn(16, 200, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    logits += torch.randn(16, 200, 1, 1, generator=torch.Generator().manual_seed(1)) * 2
    info = store_info(SpectralShape(12, 12, 8, (3, 3)), 200, (6, 6))
    boxes = check_boxes(training_crops(64)[32:], 32)
    own = torch.softmax(logits.flatten(2).double() @ torch.from_numpy(location_weights(boxes, (6, 6))).T, dim=1)
    gaps = {}
    for baseline in ("absent_mass", "absent_mean"):
        arrays = encode(logits, replace(info, baseline=baseline))
        named = split(arrays["spectra"], info)["classes"].astype(np.int64)
        rows = {"spectra": np.repeat(arrays["spectra"], 32, axis=0)}
        soft = torch.from_numpy(softmax(SPECTRAL.pool(rows, np.tile(boxes, (16, 1)), info))).view(16, 32, 200)
        absent = torch.ones(16, 200, 1).scatter_(1, torch.from_numpy(named)[:, :, None], 0.0)
        gaps[baseline] = ((own * absent).sum(1) - (soft.transpose(1, 2) * absent).sum(1)).mean(1).abs().mean()
    assert gaps["absent_mass"] < 0.02
    assert gaps["absent_mean"] > 0.1


def test_classes_are_chosen_by_their_probability_over_crops():
    logits = torch.zeros(1, 10, 6, 6)
    logits[0, 3, :3], logits[0, 7, :, 4:], logits[0, 5] = 9.0, 9.0, 5.0
    info = store_info(SpectralShape(3, 3, 3, (3, 3)), 10, (6, 6))
    classes = split(encode(logits, info)["spectra"], info)["classes"]
    assert sorted(classes[0].tolist()) == [3, 5, 7]


def test_what_is_on_top_stays_on_top():
    logits = torch.zeros(1, 4, 4, 8)
    logits[0, 2, :2] = 9.0  # hot in the top half of a wide map
    info = store_info(SpectralShape(4, 4, 3, (3, 3)), 4, (4, 8))
    arrays = encode(logits, info)
    halves = [(0, 0, 1, 0.4), (0, 0.6, 1, 1), (0, 0, 0.4, 1), (0.6, 0, 1, 1)]
    soft = softmax(SPECTRAL.pool({"spectra": arrays["spectra"].repeat(4, 0)}, check_boxes(halves, 4), info))[:, 2]
    assert soft[0] > 0.95
    assert soft[1] < 0.5
    assert abs(soft[2] - soft[3]) < 1e-3


@pytest.mark.parametrize(
    ("num_classes", "size", "shape"),
    [
        (1, (2, 2), SpectralShape(1, 1, 3, (2, 2))),
        (1, (1, 1), SpectralShape(1, 0, 0, (1, 1))),
        (5, (1, 1), SpectralShape(3, 0, 0, (1, 1))),
        (5, (2, 2), SpectralShape(5, 3, 3, (2, 2))),
        (5, (1, 7), SpectralShape(2, 1, 3, (1, 4))),
    ],
)
def test_small_maps_and_few_classes(num_classes, size, shape):
    logits = torch.randn(3, num_classes, *size, generator=torch.Generator().manual_seed(0))
    info = store_info(shape, num_classes, size)
    arrays = encode(logits, info)
    assert SPECTRAL.check(arrays, info) is None
    whole = check_boxes([(0, 0, 1, 1)] * 3, 3)
    soft = softmax(SPECTRAL.pool(arrays, whole, info))
    np.testing.assert_allclose(soft, torchvision_pool(dense_of(arrays["spectra"], info), whole), atol=1e-5)
    if size == (1, 1) and num_classes == 1:
        np.testing.assert_allclose(soft, 1.0)


def test_a_spike_is_smeared_and_the_distance_says_so():
    """The worst case: a class that one location alone shows. Its mean is kept, its place is not."""
    logits = torch.zeros(1, 20, 15, 15)
    logits[0, 4, 7, 7] = 200.0
    info = store_info(SpectralShape(4, 4, 4, (4, 4)), 20, (15, 15))
    arrays = encode(logits, info)
    l1, kl, *_ = label_distances(logits.numpy(), arrays, info).mean(axis=1)
    assert 0.05 < l1 <= 2
    assert math.isfinite(kl)
    whole = {"spectra": np.repeat(arrays["spectra"], 1024, axis=0)}
    pooled = SPECTRAL.pool(whole, check_boxes(training_crops(1024), 1024), info)
    own = location_weights(training_crops(1024), (15, 15)) @ logits.flatten(2)[0].numpy().T
    offset = pooled[:, 0].mean() - own[:, 0].mean()
    np.testing.assert_allclose(pooled[:, 4].mean() - offset, own[:, 4].mean(), rtol=0.02)
    local = store_info(SpectralShape(4, 4, 35, (6, 6)), 20, (15, 15))
    assert label_distances(logits.numpy(), encode(logits, local), local)[0].mean() < l1


def test_flat_maps_and_huge_spans_survive():
    info = store_info(SpectralShape(3, 2, 2, (2, 2)), 4, (2, 3))
    for values in ([1.5] * 4, [1e37, -1e37, -1e37, 0], [1e-45, 0, 0, 0], [1.0, 1.0 - 6e-8, 0.0, -1]):
        logits = torch.tensor(values).view(1, 4, 1, 1).expand(1, 4, 2, 3).contiguous()
        arrays = encode(logits, info)
        assert SPECTRAL.check(arrays, info) is None
        soft = softmax(SPECTRAL.pool(arrays, check_boxes([(0, 0, 1, 1)], 1), info))
        np.testing.assert_allclose(soft, torch.softmax(torch.tensor([values]), 1), atol=1e-3)


@pytest.mark.parametrize("bits", [0, 1, 2])
@pytest.mark.parametrize("height", [-3000.0, 3000.0])
def test_logits_far_from_what_absent_classes_count_as(bits, height):
    logits = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(0)) + height
    boxes = check_boxes([(0.1, 0.2, 0.8, 0.9)] * 2, 2)
    for named in (12, 5):
        info = store_info(SpectralShape(named, 3, 2, (2, 2), bits), 12, (4, 4), "zero")
        arrays = encode(logits, info)
        soft = softmax(SPECTRAL.pool(arrays, boxes, info))
        compiled = np.empty_like(soft)
        SPECTRAL.compiled()(arrays, boxes, info, 1.0, compiled)
        np.testing.assert_allclose(compiled, soft, atol=1e-4)  # NumPy's logits are float32
        np.testing.assert_allclose(compiled.sum(axis=1), 1, atol=1e-5)


def test_labels_of_a_batch_do_not_depend_on_their_neighbours():
    logits = torch.randn(5, 30, 7, 7, generator=torch.Generator().manual_seed(3))
    info = store_info(SpectralShape(6, 3, 3, (3, 3)), 30, (7, 7))
    boxes = check_boxes(training_crops(5), 5)
    together = SPECTRAL.pool(encode(logits, info), boxes, info)
    singly = [SPECTRAL.pool(encode(logits[row : row + 1], info), boxes[row : row + 1], info)[0] for row in range(5)]
    np.testing.assert_allclose(softmax(together), softmax(np.stack(singly)), atol=2e-3)


@pytest.mark.parametrize(
    ("field", "place", "value", "words"),
    [
        ("classes", 1, 30, "classes: expected 0..29, found 30"),
        ("classes", 0, 65534, "classes: expected 0..29, found 65534"),
        ("classes", 3, None, "classes: expected each at most once, found"),
        ("scales", 0, np.nan, "scales: expected"),
        ("scales", 1, -1.0, "scales: expected"),
        ("scales", 2, np.inf, "scales: expected"),
    ],
)
def test_what_no_writer_makes_is_damage(field, place, value, words):
    logits = torch.randn(3, 30, 5, 5, generator=torch.Generator().manual_seed(0))
    info = store_info(SpectralShape(6, 3, 3, (3, 3)), 30, (5, 5))
    records = encode(logits, info)["spectra"].view(record_of(info))[:, 0]
    records[field][1, place] = records["classes"][1, 0] if value is None else value
    row, said = SPECTRAL.check({"spectra": records.view(np.uint8).reshape(3, -1)}, info)
    assert row == 1
    assert words in said


def test_places_without_a_class_add_nothing():
    logits = torch.randn(1, 30, 5, 5, generator=torch.Generator().manual_seed(0))
    info = store_info(SpectralShape(6, 3, 3, (3, 3)), 30, (5, 5))
    records = encode(logits, info)["spectra"].view(record_of(info))
    records["classes"][0, 0, 2:] = NO_CLASS
    arrays = {"spectra": records.view(np.uint8)}
    assert SPECTRAL.check(arrays, info) is None
    boxes = check_boxes([(0.1, 0.2, 0.8, 0.9)], 1)
    soft = softmax(SPECTRAL.pool(arrays, boxes, info))
    assert len(np.unique(soft.round(7))) == 3
    compiled = np.empty_like(soft)
    SPECTRAL.compiled()(arrays, boxes, info, 1.0, compiled)
    np.testing.assert_allclose(compiled, soft, atol=1e-6)
    np.testing.assert_allclose(soft, torchvision_pool(dense_of(arrays["spectra"], info), boxes), atol=1e-6)


@pytest.mark.gpu
def test_a_gpu_encodes_as_the_cpu_does():
    """Not bit by bit: sums are in another order, and a level may be rounded the other way."""
    logits = torch.randn(16, 200, 7, 7, generator=torch.Generator().manual_seed(0)) * 3
    info = store_info(SpectralShape(12, 6, 5, (5, 5), 2), 200, (7, 7))
    boxes = check_boxes(training_crops(16), 16)
    here, there = (SPECTRAL.pool(encode(given, info), boxes, info) for given in (logits, logits.cuda()))
    np.testing.assert_allclose(softmax(there), softmax(here), atol=5e-3)


def test_training_crops_are_those_of_random_resized_crop():
    boxes = training_crops(4096)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    free = (width < 0.999) & (height < 0.999)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    assert abs(np.median(width * height) - 0.54) < 0.03
    assert 0.745 < (width / height)[free].min() < (width / height)[free].max() < 1.34
    left = boxes[free, 0] / (1 - width[free])
    assert abs(left.mean() - 0.5) < 0.02
