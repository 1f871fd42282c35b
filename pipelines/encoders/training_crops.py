"""Crops as training draws them, evenly spread instead of at random: what an encoding is made for, and measured with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import box_weights
from labelstore.random_crops import RATIO, SCALE

_GOLDEN = 1.1673039782614187
"""The root of x^5 = x + 1: its powers spread points evenly in four dimensions (Roberts 2018)."""


@lru_cache
def training_crops(count: int) -> NDArray[np.float64]:
    """Return boxes ``[count, 4]`` of the distribution of torchvision's RandomResizedCrop on square images.

    A low-discrepancy sequence, not random numbers: the same on every machine, and even with few.
    """
    steps = _GOLDEN ** -np.arange(1, 5)
    area, ratio, left, top = ((0.5 + np.outer(steps, np.arange(1, count + 1))) % 1.0).tolist()
    areas = np.interp(area, (0, 1), SCALE)
    ratios = np.exp(np.interp(ratio, (0, 1), np.log(RATIO)))
    width, height = np.minimum(np.sqrt(areas * ratios), 1.0), np.minimum(np.sqrt(areas / ratios), 1.0)
    x, y = np.array(left) * (1 - width), np.array(top) * (1 - height)
    boxes = np.stack([x, y, x + width, y + height], axis=1).clip(0, 1)
    boxes.flags.writeable = False
    return boxes


def location_weights(boxes: NDArray[np.float64], map_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return RoIAlign's weights of a map's locations for boxes, float64 ``[B, H * W]``: pooling is the product with them."""
    down, across = box_weights(boxes, map_size)
    weights: NDArray[np.float64] = (down[:, :, None] * across[:, None, :]).reshape(len(boxes), -1)
    return weights
