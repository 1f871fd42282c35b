"""Pooled logits to soft labels, in NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from labelstore.class_columns import ClassColumns
from labelstore.encodings import Arrays, Encoding
from labelstore.errors import OptionError
from labelstore.schema import StoreInfo

_BLOCK = 128
"""Rows pooled at once: what the steps hand to each other stays in the processor's cache."""

_SAFE = 60.0
"""Logits up to this need no shift before exp: 65,535 of them add up to less than float32's largest number."""


def check_temperature(temperature: float) -> np.float32:
    """Return the temperature, checked.

    Raises
    ------
    OptionError
        ``temperature`` is not a positive, finite number.
    """
    if not (isinstance(temperature, int | float | np.floating | np.integer) and math.isfinite(temperature) and temperature > 0):
        raise OptionError(f"temperature: expected a positive number, got {temperature!r}")
    return np.float32(temperature)


def pool_maps(
    encoding: Encoding,
    maps: Arrays,
    boxes: NDArray[np.float64],
    info: StoreInfo,
    temperature: np.float32,
    columns: ClassColumns | None,
) -> NDArray[np.float32]:
    """Return the soft labels of checked maps and boxes, block by block, in NumPy."""
    soft = np.empty((len(boxes), info.num_classes if columns is None else len(columns)), np.float32)
    for start in range(0, len(boxes), _BLOCK):
        block = slice(start, start + _BLOCK)
        logits = encoding.pool({name: part[block] for name, part in maps.items()}, boxes[block], info)
        if columns is None:
            softmax(logits, temperature, soft[block])
        elif columns.starts is None:
            softmax(logits[:, columns.classes], temperature, soft[block])
        else:
            columns.gather(softmax(logits[:, columns.classes], temperature), soft[block])
    return soft


def softmax(
    logits: NDArray[np.float32], temperature: float | np.float32 = 1.0, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return ``exp(logits / temperature)``, normalised along the last axis: float32, sums to 1; written to ``out`` if given."""
    most = logits.max(axis=-1, keepdims=True)
    if temperature != 1 or (np.abs(most) > _SAFE).any():
        with np.errstate(over="ignore"):  # what falls to -inf has probability 0, as it should
            logits = (logits - most) / temperature
    soft: NDArray[np.float32] = np.exp(logits, out=out)
    soft *= 1 / soft.sum(axis=-1, keepdims=True)
    return soft
