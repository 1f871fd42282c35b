"""Pooled logits to soft labels, in NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import OptionError


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return ``exp(logits / temperature)``, normalised along the last axis: float32, sums to 1.

    Raises
    ------
    OptionError
        ``temperature`` is not a positive, finite number.
    """
    if not (isinstance(temperature, int | float | np.floating) and math.isfinite(temperature) and temperature > 0):
        raise OptionError(f"temperature: expected a positive number, got {temperature!r}")
    with np.errstate(over="ignore"):  # what falls to -inf has probability 0, as it should
        soft: NDArray[np.float32] = np.exp((logits - logits.max(axis=-1, keepdims=True)) / np.float32(temperature))
    soft /= soft.sum(axis=-1, keepdims=True)
    return soft
