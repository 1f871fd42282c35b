"""Pooling of encoding ``topk`` compiled by numba: one pass over what lies in the box, no arrays in between.

Does what `TopK.pool` and `softmax` do. Needs the extra ``[fast]``; importing this module imports numba and compiles, or loads
what was compiled before (0.3 s).
"""

from __future__ import annotations

from math import exp, inf

import numba
import numpy as np
from numpy.typing import NDArray

from labelstore.encodings.compiling import axis_weights, compiled, given

_SIGNATURE = numba.void(
    given(numba.uint16, 4),
    given(numba.uint8, 4),
    given(numba.float32, 2),
    given(numba.float64, 2),
    numba.int64,
    numba.float64,
    numba.float32[:, ::1],
)


@compiled(inline="always")
def _softmax(sums: NDArray[np.float64], touched: NDArray[np.int64], temperature: float, out: NDArray[np.float32]) -> None:
    """Write the softmax of sparse logits ``[C]``, in which classes that nobody touched share one value, that of logit 0."""
    most, listed, total = -inf, 0, 0.0
    for chosen in touched:
        if chosen < len(sums):
            most = max(most, sums[chosen])
            listed += 1
    if listed < len(sums):
        most = max(most, 0.0)
    for chosen in touched:
        if chosen < len(sums):
            sums[chosen] = exp((sums[chosen] - most) / temperature)
            total += sums[chosen]
    absent = exp(-most / temperature) if listed < len(sums) else 0.0
    total += (len(sums) - listed) * absent
    out[:] = absent / total
    for chosen in touched:
        if chosen < len(sums):
            out[chosen] = sums[chosen] / total


@compiled(_SIGNATURE)
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
        first_y, last_y = axis_weights(boxes[item, 1], boxes[item, 3], rows)
        first_x, last_x = axis_weights(boxes[item, 0], boxes[item, 2], columns)
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
