"""Transforms with and without the box that `follow` returns beside the image."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from PIL import Image
from ramps import box_shown, ramp_images
from timm.utils import random_seed

from labelstore.torch.follow import follow

SEEDS = range(6)
CLOSE = 2e-3  # a quarter of a pixel of the photograph: antialiasing bends ramps a little


def photograph(height=90, width=120):
    pixels = np.random.default_rng(7).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def after(transform, image, seed):
    """What the transform makes of a copy of the image, and the random numbers that come next."""
    random_seed(seed)
    made = transform(copy.deepcopy(image))
    return made, (random.random(), torch.rand(1).item())


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_same(value, other[name])
    elif isinstance(one, Image.Image):
        assert (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())
    else:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def follow_one(transform, image, seed, **options):
    """The box, once image and random numbers are those of the transform alone."""
    expected, next_expected = after(transform, image, seed)
    (got, box), next_got = after(follow(transform, **options), image, seed)
    assert_same(got, expected)
    assert next_got == next_expected
    assert type(box) is torch.Tensor
    assert box.dtype == torch.float64
    return box.numpy()


def shown_by(transform, height, width, seed):
    """The box that the same transform shows on images of ramps."""
    planes = [np.asarray(after(transform, plane, seed)[0], dtype=np.float64) for plane in ramp_images(height, width)]
    return box_shown(np.stack(planes))
