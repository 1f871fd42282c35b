"""Boxes of random training crops, as torchvision's RandomResizedCrop draws them, in fractions of the image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
_TRIES = 10


def random_boxes(rng: np.random.Generator, count: int, aspect: float = 1.0) -> NDArray[np.float64]:
    """Return boxes of random crops, float64 ``[count, 4]``: ``(x1, y1, x2, y2)``.

    8 % of the area up to all of it, sides of 3:4 to 4:3 in pixels, half of them mirrored. What does not fit is drawn again, up
    to ten times; then it is the largest central crop of such sides.

    Parameters
    ----------
    aspect
        The image's width over its height.
    """
    boxes = np.array([_draw(rng, aspect) for _ in range(count)]).reshape(-1, 4)
    mirrored = rng.random(count) < 0.5
    boxes[mirrored] = boxes[mirrored][:, [2, 1, 0, 3]]
    return boxes


def _draw(rng: np.random.Generator, aspect: float) -> tuple[float, float, float, float]:
    low, high = map(math.log, RATIO)
    for _ in range(_TRIES):
        area, ratio = rng.uniform(*SCALE), math.exp(rng.uniform(low, high))
        # In units of the image's height: width * height = area * aspect, width / height = ratio.
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area * aspect / ratio)
        if width <= 1 and height <= 1:
            x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return x, y, x + width, y + height
    width, height = min(1.0, RATIO[1] / aspect), min(1.0, aspect / RATIO[0])
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2
