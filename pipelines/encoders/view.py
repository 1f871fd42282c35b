"""How maps of a size look through random crops: what a spectral encoding is fitted to, worked out once a size and device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelstore.encodings.spectral import cosines
from labelstore.pipelines.encoders.training_crops import location_weights, training_crops

_FEW, _MANY = 32, 1024
"""Crops over which each image's classes are chosen, and over which the map's geometry is worked out once."""
_SMOOTH, _SMOOTH_RCOND = 3, 1e-3
"""Frequencies of what absent classes count as beyond their mean; what crops can hardly tell of them is left out."""


@dataclass(frozen=True)
class View:
    """How maps of a size look through crops, in float64 on one device. F frequencies but the constant one, L locations."""

    crops: Tensor
    """``[few, L]``: weights of a few crops."""
    smooth: Tensor
    """``[few, L]``: values over those crops to the smooth map that has them best, if values come first."""
    mean: Tensor
    """``[L]``: the mean weights of many."""
    analysis: Tensor
    """``[F, L]``: a map to the cosines that give its pooled values best, its mean apart."""
    spread: Tensor
    """``[F, F]``, triangular: coefficients times this have the variance over crops as their squared length."""
    unspread: Tensor
    """Its inverse."""
    offset: Tensor
    """``[F]``: the mean of each pooled cosine."""


@lru_cache(maxsize=8)
def view_of(height: int, width: int, down: int, across: int, device: str) -> View:
    """Work out how maps of a size look through crops."""
    weights = location_weights(training_crops(_MANY), (height, width))
    table = _waves((height, width), (down, across))[:, 1:]
    pooled, mean = weights @ table, weights.mean(0)
    offset = pooled.mean(0)
    centred = pooled - offset
    spread = centred.T @ centred / _MANY
    spread += np.eye(len(spread)) * 1e-6 * max(float(np.trace(spread)), 1e-12)
    analysis = np.linalg.solve(spread, centred.T @ (weights - mean) / _MANY)
    root = np.linalg.cholesky(spread)
    crops = location_weights(training_crops(_FEW), (height, width))
    waves = _waves((height, width), (min(_SMOOTH, height), min(_SMOOTH, width)))
    smooth = (waves @ np.linalg.pinv(crops @ waves, rcond=_SMOOTH_RCOND)).T
    parts = (crops, smooth, mean, analysis, root, np.linalg.inv(root), offset)
    return View(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts))


def _waves(size: tuple[int, int], frequencies: tuple[int, int]) -> NDArray[np.float64]:
    """Return the lowest cosines of a map, ``[L, kh * kw]``."""
    down, across = (cosines(length, count) for length, count in zip(size, frequencies, strict=True))
    table: NDArray[np.float64] = np.einsum("yu,xv->yxuv", down, across).reshape(size[0] * size[1], -1)
    return table
