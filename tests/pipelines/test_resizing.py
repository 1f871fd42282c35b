"""Images squashed to a square: as Pillow does it, whoever does it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from labelstore.pipelines.annotators.spec import Preprocessing
from labelstore.pipelines.resizing import one_core, squash
from labelstore.pipelines.samples import copy_samples


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    files = sorted(copy_samples(tmp_path_factory.mktemp("samples")).iterdir())
    return [Image.open(file).convert("RGB") for file in files]


def how(interpolation, size):
    return Preprocessing(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), interpolation)


@pytest.mark.parametrize("size", [7, 224, 600])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_pixels_are_pillows_but_for_rounding(photographs, interpolation, size):
    for image in photographs[:6]:
        got = squash(image, how(interpolation, size))
        expected = np.asarray(image.resize((size, size), Image.Resampling[interpolation.upper()]))
        assert (got.dtype, got.shape) == (np.uint8, (size, size, 3))
        difference = np.abs(got.astype(int) - expected)
        if interpolation in ("nearest", "lanczos"):
            assert not difference.any()
        else:
            assert difference.max() <= 2
            assert difference.mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 2), (97, 501)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_of_any_shape(shape, interpolation):
    values = np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), np.uint8)
    got = squash(Image.fromarray(values), how(interpolation, 32))
    expected = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling[interpolation.upper()]))
    assert np.abs(got.astype(int) - expected).max() <= 2


def test_threads_that_decode_give_what_one_thread_gives_and_leave_others_their_cores(photographs):
    alone = [squash(image, how("bicubic", 96)) for image in photographs]
    before = torch.get_num_threads()
    with ThreadPoolExecutor(4, initializer=one_core) as executor:
        together = list(executor.map(lambda image: (torch.get_num_threads(), squash(image, how("bicubic", 96))), photographs))
    assert torch.get_num_threads() == before
    for expected, (threads, got) in zip(alone, together, strict=True):
        assert threads == 1
        np.testing.assert_array_equal(got, expected)
