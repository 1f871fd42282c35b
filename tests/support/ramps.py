"""Images whose pixels say where they lie, and the box that is read off what a transform made of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


def ramps(height: int, width: int) -> NDArray[np.float64]:
    """``[2, height, width]``: the x and the y of each pixel's centre, as fractions of the image."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return np.stack([np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))])


def ramp_tensor(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(ramps(height, width))


def ramp_images(height: int, width: int) -> list[Image.Image]:
    """The same as two PIL images of mode F (float32)."""
    return [Image.fromarray(plane.astype(np.float32)) for plane in ramps(height, width)]


def box_shown(shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box that what is left of `ramps` shows: straight lines fitted to the inner pixels; 0 and NaN are padding."""
    valid = np.isfinite(shown).all(axis=0) & (shown > 0).all(axis=0)
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    height, width = valid.shape
    x1, x2 = _ends(shown[0, rows[len(rows) // 2]], columns, width)
    y1, y2 = _ends(shown[1, :, columns[len(columns) // 2]], rows, height)
    return np.array([x1, y1, x2, y2])


def _ends(line: NDArray[np.float64], valid: NDArray[np.int64], size: int) -> tuple[float, float]:
    inner = valid[len(valid) // 4 : len(valid) - len(valid) // 4]
    x, y = inner + 0.5, line[inner]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    first = y.mean() - slope * x.mean()
    return first, first + slope * size
