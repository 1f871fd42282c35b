"""Pooling of spectral maps as tensors: equal to the reader's, and to torchvision's RoIAlign of the rebuilt map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from labelstore import LabelMapReader
from labelstore.encodings import find_encoding
from labelstore.encodings.spectral import rebuild, rest_logits, split
from labelstore.errors import DamagedError, MapsError
from labelstore.pipelines.encoders import encode
from labelstore.records import AnnotatorRecord, SpectralShape
from labelstore.schema import StoreInfo
from labelstore.torch import pool, pool_logits

SIZE, CLASSES = (5, 8), 12
INFO = StoreInfo(
    num_rows=1,
    num_classes=CLASSES,
    top_k=3,
    map_size=SIZE,
    shard_size=4,
    id_bytes=1,
    annotator=AnnotatorRecord("test", "0" * 64, 8, (0.0,) * 3, (1.0,) * 3, "bilinear"),
    encoding="spectral",
    spectral=SpectralShape(7, 4, 3, (3, 4), 2),
    baseline="absent_mass",
)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(part) for name, part in arrays.items()}


def random_maps(count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Packed maps, and the dense maps that they stand for."""
    arrays = encode(torch.randn(count, CLASSES, *SIZE, generator=torch.Generator().manual_seed(count)) * 3, INFO)
    classes, logits = rebuild(arrays["spectra"], INFO)
    rest = rest_logits(split(arrays["spectra"], INFO), INFO)
    dense = torch.from_numpy(rest).double()[:, :, None, None].repeat(1, 1, *SIZE)
    for row in range(count):
        dense[row, classes[row].astype(np.int64)] = torch.from_numpy(logits[row])
    return tensors(find_encoding("spectral", "test").unpack(arrays, INFO)), dense


@pytest.fixture
def reader(spectral_store) -> LabelMapReader:
    return LabelMapReader(spectral_store)


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"class_map": [5, 4, 2]}])
def test_equal_to_the_readers(reader, options):
    rows, boxes = np.arange(21), np.random.default_rng(0).uniform(-0.1, 1.1, (21, 4))
    theirs = torch.from_numpy(reader.pool(rows, boxes, **options))
    given = {name: torch.tensor(value) if name == "class_map" else value for name, value in options.items()}
    packed = tensors(reader.read_packed(rows))
    found = pool(packed, torch.from_numpy(boxes), reader.num_classes, map_size=reader.map_size, **given)
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 8), (7, 4)])
def test_tokens_equal_torchvision_on_the_rebuilt_map(grid):
    maps, dense = random_maps(40)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.9, (40, 2))
    boxes = torch.from_numpy(np.concatenate([low, rng.uniform(low + 0.02, 1.0)], axis=1))
    boxes[::3] = boxes[::3, [2, 1, 0, 3]]  # mirrored
    found = pool(maps, boxes, CLASSES, map_size=SIZE, grid=grid)
    height, width = SIZE
    sorted_ = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)
    scaled = sorted_ * torch.tensor([width, height, width, height]) - 0.5
    regions = torch.cat([torch.arange(40.0, dtype=torch.float64)[:, None], scaled], dim=1)
    expected = roi_align(dense, regions, grid, sampling_ratio=-1, aligned=False)
    expected[::3] = expected[::3].flip(3)
    torch.testing.assert_close(found, expected.softmax(1).permute(0, 2, 3, 1).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [None, (2, 3)])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_under_compile(grid, backend):
    torch.compiler.reset()
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend=backend)
    for count in (5, 3):
        maps, _ = random_maps(count)
        boxes = torch.rand(count, 4, dtype=torch.float64)
        found = compiled(maps, boxes, CLASSES, map_size=SIZE, grid=grid)
        torch.testing.assert_close(found, pool(maps, boxes, CLASSES, map_size=SIZE, grid=grid), atol=1e-6, rtol=0)


def test_autocast_does_not_lower_the_precision():
    maps, _ = random_maps(4)
    boxes = torch.tensor([[0.1, 0.2, 0.8, 0.9]] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(maps, boxes, CLASSES, map_size=SIZE, grid=(2, 2))
    assert torch.equal(found, pool(maps, boxes, CLASSES, map_size=SIZE, grid=(2, 2)))
    assert found.dtype == torch.float32


@pytest.mark.gpu
def test_on_a_gpu():
    maps, _ = random_maps(64)
    boxes = torch.rand(64, 4, dtype=torch.float64)
    expected = pool(maps, boxes, CLASSES, map_size=SIZE, grid=(2, 2))
    there = {name: part.cuda() for name, part in maps.items()}
    found = pool(there, boxes.cuda(), CLASSES, map_size=SIZE, grid=(2, 2)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": None}, "expected 'scales', 'rest', 'classes', 'means', 'weights', 'patterns', 'tail', got"),
        ({"weights": torch.zeros(2, 4, 2, dtype=torch.int8)}, r"weights|patterns: expected \[2, 2, 3, 4\], got \[2, 3, 3, 4\]"),
        ({"weights": torch.zeros(2, 8, 3, dtype=torch.int8)}, r"weights: expected \[2, 7, 3\], got \[2, 8, 3\]"),
        ({"rest": torch.zeros(2, 3)}, r"rest: expected \[B, 0\], \[B, 2\] or \[B, 4\], got \[2, 3\]"),
        ({"rest": torch.zeros(2, 2)}, r"tail: expected \[2, 2\], got \[2, 3\]"),
        ({"scales": torch.zeros(2, 2)}, r"scales: expected \[2, 3\], got \[2, 2\]"),
        ({"classes": torch.zeros(2, 7)}, "classes: expected uint16, int32 or int64"),
        ({"classes": torch.zeros(2, 7, 1, dtype=torch.int64)}, r"expected classes \[B, M\]"),
    ],
)
def test_maps_that_are_none(change, words):
    maps = {name: part for name, part in (random_maps(2)[0] | change).items() if part is not None}
    with pytest.raises(MapsError, match=words):
        pool(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), CLASSES, map_size=SIZE)


def test_the_maps_size_must_be_given():
    with pytest.raises(MapsError, match=r"map_size=reader\.map_size"):
        pool_logits(random_maps(1)[0], torch.tensor([[0.0, 0.0, 1.0, 1.0]]), CLASSES)


def test_classes_that_the_store_does_not_have():
    maps = random_maps(1)[0]
    maps["classes"][0, 3] = CLASSES
    with pytest.raises(DamagedError, match=r"expected 0\.\.11"):
        pool_logits(maps, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), CLASSES, map_size=SIZE)
