"""Pooling of tensors: equal to NumPy's, and to torchvision's RoIAlign of the dense map, token labels included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from labelstore import LabelMapReader
from labelstore.errors import BoxError, DamagedError, MapsError, OptionError
from labelstore.schema import NO_CLASS
from labelstore.torch import pool, pool_logits

CLASSES = 6
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def random_maps(seed: int, count: int, ranks: int, height: int, width: int) -> dict[str, Tensor]:
    """Maps with different classes at each location, some of them none."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(CLASSES)[:, None, None], (count, 1, height, width)), axis=1)[:, :ranks]
    classes = np.where((rng.random(order.shape) < 0.1) & (np.arange(ranks) > 0)[:, None, None], NO_CLASS, order)
    scores = -np.sort(-rng.normal(scale=3, size=order.shape), axis=1)
    return {"classes": torch.from_numpy(classes.astype(np.uint16)), "scores": torch.from_numpy(scores.astype(np.float32))}


def dense(maps: dict[str, Tensor]) -> Tensor:
    classes, scores = maps["classes"].long().clamp(max=CLASSES), maps["scores"].double()
    count, _, height, width = classes.shape
    return torch.zeros(count, CLASSES + 1, height, width, dtype=torch.float64).scatter_add_(1, classes, scores)[:, :CLASSES]


def by_torchvision(maps: dict[str, Tensor], boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Soft labels [B, gh, gw, C] as DESIGN and docs/format.md have them, one box at a time."""
    labels = []
    for one, box in zip(dense(maps), boxes.double(), strict=True):
        height, width = one.shape[1:]
        x1, x2 = box[[0, 2]].sort().values.clamp(0, 1) * width - 0.5
        y1, y2 = box[[1, 3]].sort().values.clamp(0, 1) * height - 0.5
        region = torch.stack([torch.zeros_like(x1), x1, y1, x2, y2])[None]
        found = roi_align(one[None], region, output_size=grid, sampling_ratio=-1, aligned=False)[0]
        flipped = [axis for axis, (low, high) in ((1, box[[1, 3]]), (2, box[[0, 2]])) if low > high]
        labels.append(found.flip(flipped).softmax(0).permute(1, 2, 0))
    return torch.stack(labels).float()


@st.composite
def cases(draw):
    count, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    maps = random_maps(draw(st.integers(0, 2**32 - 1)), count, draw(st.integers(1, CLASSES)), height, width)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["any", "tiny", "whole", "edge"]))
    low = rng.uniform(0, 0.9, (count, 2))
    high = {
        "any": rng.uniform(low + 0.05, 1.2),
        "tiny": low + 0.01,
        "edge": np.full((count, 2), 1.0),
        "whole": np.ones((count, 2)),
    }[kind]
    low = {"any": low - 0.1, "edge": np.full((count, 2), 0.98), "whole": np.zeros((count, 2))}.get(kind, low)
    boxes = np.concatenate([low, high], axis=1)
    order = [0, 1, 2, 3]
    if draw(st.booleans()):
        order[0], order[2] = order[2], order[0]
    if draw(st.booleans()):
        order[1], order[3] = order[3], order[1]
    return maps, torch.from_numpy(boxes[:, order]), (draw(st.integers(1, 6)), draw(st.integers(1, 6)))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_tokens_equal_torchvision_on_the_dense_map(case):
    maps, boxes, grid = case
    found = pool(maps, boxes, CLASSES, grid=grid)
    assert found.shape == (len(boxes), *grid, CLASSES)
    torch.testing.assert_close(found, by_torchvision(maps, boxes, grid), atol=1e-5, rtol=0)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_labels_equal_torchvision_and_a_grid_of_one(case):
    maps, boxes, _ = case
    found = pool(maps, boxes, CLASSES)
    torch.testing.assert_close(found, by_torchvision(maps, boxes, (1, 1))[:, 0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found, pool(maps, boxes, CLASSES, grid=(1, 1))[:, 0, 0], atol=1e-7, rtol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(boxes)))


@pytest.fixture
def reader(picture_store) -> LabelMapReader:
    return LabelMapReader(picture_store)


def tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(part) for name, part in arrays.items()}


GROUPS = {"class_map": [[5, 4], [2, -1], [0, -1]]}


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 3.0}, {"class_map": [5, 4, 2]}, GROUPS, {**GROUPS, "temperature": 3.0}]
)
def test_equal_to_the_readers(reader, options):
    rows = np.arange(21)
    boxes = np.random.default_rng(0).uniform(-0.1, 1.1, (21, 4))
    theirs = torch.from_numpy(reader.pool(rows, boxes, **options))
    given_ = {name: torch.tensor(value) if name == "class_map" else value for name, value in options.items()}
    maps = reader.read(rows)
    for ours in (reader.read_packed(rows), {"classes": maps.classes, "scores": maps.scores}):
        found = pool(tensors(ours), torch.from_numpy(boxes), reader.num_classes, **given_)
        torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)
        assert not found.requires_grad


def test_what_is_on_top_stays_on_top():
    classes = torch.zeros(1, 1, 4, 8, dtype=torch.int64)
    scores = torch.zeros(1, 1, 4, 8)
    scores[:, :, :2] = 9.0  # hot in the top half of a wide map
    maps = {"classes": classes, "scores": scores}
    boxes = torch.tensor([[0.0, 0.0, 1.0, 0.4], [0.0, 0.6, 1.0, 1.0], [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0]])
    many = {name: part.expand(4, -1, -1, -1) for name, part in maps.items()}
    found = pool_logits(many, boxes, 2)[:, 0]
    torch.testing.assert_close(found, torch.tensor([9.0, 0.0, 4.5, 4.5]))
    tokens = pool_logits(maps, WHOLE, 2, grid=(2, 3))[0, :, :, 0]
    assert (tokens[0] > 6).all()
    assert (tokens[1] < 3).all()
    mirrored = pool_logits(maps, torch.tensor([[0.0, 1.0, 1.0, 0.0]]), 2, grid=(2, 3))[0, :, :, 0]
    torch.testing.assert_close(mirrored, tokens.flip(0))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64])
def test_kinds_of_whole_numbers(dtype):
    maps = random_maps(0, 2, 3, 4, 5) | {"box": torch.ones(1)}  # other keys do not matter
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.9]] * 2)
    expected = pool(maps, boxes, CLASSES)
    assert torch.equal(pool(maps | {"classes": maps["classes"].to(dtype)}, boxes, CLASSES), expected)


def test_no_class_adds_nothing():
    maps = random_maps(1, 1, 2, 3, 3)
    none = maps["classes"] == NO_CLASS
    assert none.any()
    raised = maps | {"scores": torch.where(none, 1e6, maps["scores"])}
    assert torch.equal(pool(raised, WHOLE, CLASSES), pool(maps, WHOLE, CLASSES))


def test_autocast_does_not_lower_the_precision():
    maps = random_maps(0, 4, 3, 7, 7)
    boxes = WHOLE.expand(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pool(maps, boxes, CLASSES), pool(maps, boxes, CLASSES))
        found = pool(maps, boxes, CLASSES)
    assert torch.equal(found, pool(maps, boxes, CLASSES))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("grid", [None, (2, 3)])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_under_compile(grid, backend):
    torch.compiler.reset()
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend=backend)
    for count in (5, 3):
        maps = random_maps(count, count, 3, 7, 7)
        boxes = torch.rand(count, 4, dtype=torch.float64)
        for temperature in (1.0, 2.0):
            found = compiled(maps, boxes, CLASSES, grid=grid, temperature=temperature)
            expected = pool(maps, boxes, CLASSES, grid=grid, temperature=temperature)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


GOOD = random_maps(0, 2, 2, 3, 3)
BOXES = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.4, 0.4]])
PACKED = {"classes": GOOD["classes"], "scores": torch.zeros(2, 2, 3, 3, dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ({"classes": GOOD["classes"]}, MapsError, r"expected 'classes' and 'scores', or 'scales', .* got \['classes'\]"),
        (GOOD | {"scores": GOOD["scores"][:1]}, MapsError, r"\[2, 2, 3, 3\] and \[1, 2, 3, 3\]"),
        ({name: part[0] for name, part in GOOD.items()}, MapsError, r"expected \[B, K, H, W\] twice"),
        (GOOD | {"classes": GOOD["classes"].short()}, MapsError, "expected uint16, int32 or int64, got torch.int16"),
        (PACKED, MapsError, r"uint8 with 'score_range' \[2, 2\], got torch.uint8 and None"),
        (PACKED | {"score_range": torch.zeros(2)}, MapsError, r"got torch.uint8 and \[2\]"),
        (GOOD | {"scores": GOOD["scores"].long()}, MapsError, "expected floating scores"),
        (GOOD | {"classes": torch.full((2, 2, 3, 3), 6)}, DamagedError, r"expected 0\.\.5, or 65535 for none, found 6"),
        (GOOD | {"classes": torch.full((2, 2, 3, 3), -1)}, DamagedError, "found -1"),
    ],
)
def test_maps_that_are_none(maps, error, words):
    with pytest.raises(error, match=words):
        pool(maps, BOXES, CLASSES)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (BOXES[:1], r"expected floating \[2, 4\], got torch.float32 \[1, 4\]"),
        (BOXES.repeat(1, 2), r"got torch.float32 \[2, 8\]"),
        (BOXES.long(), "got torch.int64"),
        (torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.2, 0.4]]), r"boxes\[1\].*leave an area"),
        (torch.tensor([[0.0, 0.0, 1.0, torch.nan], [0.2, 0.2, 0.3, 0.4]]), r"boxes\[0\].*finite"),
        (torch.tensor([[0.0, 0.0, 1.0, torch.inf], [0.2, 0.2, 0.3, 0.4]]), r"boxes\[0\].*finite"),
        (torch.tensor([[1.1, 0.0, 1.4, 1.0], [0.2, 0.2, 0.3, 0.4]]), r"boxes\[0\].*inside"),
    ],
)
def test_boxes_that_are_none(boxes, words):
    with pytest.raises(BoxError, match=words):
        pool(GOOD, boxes, CLASSES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature: expected a positive number, got 0.0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"grid": (0, 2)}, r"grid: expected \(rows, columns\), each at least 1, got \(0, 2\)"),
        ({"grid": (2,)}, "grid"),
        ({"grid": (2.0, 2)}, "grid"),
    ],
)
def test_options_that_are_none(options, words):
    with pytest.raises(OptionError, match=words):
        pool(GOOD, BOXES, CLASSES, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_on_a_gpu_as_on_the_cpu(grid):
    assert torch.cuda.is_available()
    maps, boxes = random_maps(0, 64, 5, 15, 15), torch.rand(64, 4, dtype=torch.float64)
    moved = {name: part.cuda() for name, part in maps.items()}
    found = pool(moved, boxes.cuda(), CLASSES, grid=grid)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), pool(maps, boxes, CLASSES, grid=grid), atol=1e-5, rtol=0)
