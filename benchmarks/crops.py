"""What a training loop asks a reader for: rows at random, and boxes as RandomResizedCrop draws them. Imports NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_crops(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Boxes as RandomResizedCrop draws them: area 8 to 100 %, aspect ratio 3:4 to 4:3."""
    rng = np.random.default_rng(seed)
    area, ratio = rng.uniform(0.08, 1.0, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    width, height = np.minimum(np.sqrt(area * ratio), 1.0), np.minimum(np.sqrt(area / ratio), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return np.stack([left, top, left + width, top + height], axis=1)


def random_rows(num_rows: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Different rows in random order, as a sampler draws a batch; all of them if there are no more than ``count``."""
    return np.random.default_rng(seed).choice(num_rows, min(count, num_rows), replace=False).astype(np.int64)
