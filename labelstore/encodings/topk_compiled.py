"""Pooling of encoding ``topk`` compiled by numba: one pass over what lies in the box, no arrays in between.

Does what `TopK.pool` and `softmax` do. Needs the extra ``[fast]``; importing this module imports numba and compiles, or loads
what was compiled before (0.3 s).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, exp
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def _given(dtype: Any, dimensions: int) -> Any:
    """The type of an argument that is only read: arrays over somebody's bytes may forbid writing."""
    return numba.types.Array(dtype, dimensions, "C", readonly=True)


_SIGNATURE = numba.void(
    _given(numba.uint16, 4),
    _given(numba.uint8, 4),
    _given(numba.float32, 2),
    _given(numba.float64, 2),
    numba.int64,
    numba.float64,
    numba.float32[:, ::1],
)


def _compiled(*signature: Any, inline: str = "never") -> Callable[[F], F]:
    def compile_it(function: F) -> F:
        njit: Any = partial(numba.njit, *signature, nogil=True, error_model="numpy", inline=inline)
        try:
            made: F = njit(cache=True)(function)
        except RuntimeError:  # nowhere to keep what is compiled
            made = njit()(function)
        return made

    return compile_it


@_compiled(inline="always")
def _axis_weights(low: float, high: float, weights: NDArray[np.float64]) -> tuple[int, int]:
    """Write RoIAlign's weights of one axis (`labelstore.boxes`); return the first that is not 0, and one past the last."""
    size = len(weights)
    start = low * size - 0.5
    extent = max((high * size - 0.5) - start, 1.0)
    samples = ceil(extent)
    weights[:] = 0.0
    first, last = size, 0
    for sample in range(samples):
        at = min(max(start + (sample + 0.5) * extent / samples, 0.0), size - 1.0)
        cell = min(int(at), max(size - 2, 0))
        upper = (at - cell) / samples
        weights[cell] += 1.0 / samples - upper
        if size > 1:
            weights[cell + 1] += upper
        first, last = min(first, cell), max(last, min(cell + 2, size))
    return first, last


@_compiled(inline="always")
def _softmax(sums: NDArray[np.float64], touched: NDArray[np.int64], temperature: float, out: NDArray[np.float32]) -> None:
    """Write the softmax of sparse logits ``[C]``, in which classes that nobody touched share one value, that of logit 0."""
    most, listed, total = 0.0, 0, 0.0
    for chosen in touched:
        if chosen < len(sums):
            most = max(most, sums[chosen])
            listed += 1
    for chosen in touched:
        if chosen < len(sums):
            sums[chosen] = exp((sums[chosen] - most) / temperature)
            total += sums[chosen]
    absent = exp(-most / temperature)
    total += (len(sums) - listed) * absent
    out[:] = absent / total
    for chosen in touched:
        if chosen < len(sums):
            out[chosen] = sums[chosen] / total


@_compiled(_SIGNATURE)
def soft_labels(
    classes: NDArray[np.uint16],
    gaps: NDArray[np.uint8],
    ranges: NDArray[np.float32],
    boxes: NDArray[np.float64],
    num_classes: int,
    temperature: float,
    out: NDArray[np.float32],
) -> None:
    """Write soft labels ``[B, C]`` to ``out``.

    Parameters
    ----------
    classes, gaps, ranges
        Checked arrays of the encoding: ``[B, K, H, W]`` twice and ``[B, 2]``, contiguous.
    boxes
        ``[B, 4]``, checked.
    """
    height, width = classes.shape[2:]
    rows, columns = np.empty(height), np.empty(width)
    touched = np.empty(classes[0].size if len(classes) else 0, np.int64)
    sums = np.zeros(num_classes + 1)  # the last collects the entries that hold no class
    seen = np.zeros(num_classes + 1, np.uint8)
    for item in range(len(classes)):
        first_y, last_y = _axis_weights(boxes[item, 1], boxes[item, 3], rows)
        first_x, last_x = _axis_weights(boxes[item, 0], boxes[item, 2], columns)
        count = 0
        for y in range(first_y, last_y):
            for x in range(first_x, last_x):
                weight = rows[y] * columns[x]
                top, step, level = weight * ranges[item, 0], weight * ranges[item, 1], 0
                for rank in range(classes.shape[1]):
                    level += gaps[item, rank, y, x]
                    chosen = np.int64(classes[item, rank, y, x])
                    if chosen > num_classes:
                        chosen = np.int64(num_classes)
                    touched[count] = chosen
                    count += 1 - seen[chosen]
                    seen[chosen] = 1
                    sums[chosen] += top - step * level
        _softmax(sums[:num_classes], touched[:count], temperature, out[item])
        for place in range(count):
            sums[touched[place]], seen[touched[place]] = 0.0, 0
