"""Boxes, and the weights that RoIAlign gives to the locations of a map.

RoIAlign with a 1x1 output is linear in the map and separable: the value pooled from a map ``m`` is
``sum(wy[h] * wx[w] * m[h, w])``. This module makes ``wy`` and ``wx``, in float64, as
``torchvision.ops.roi_align(..., output_size=(1, 1), sampling_ratio=-1, aligned=False)`` does on
``[x1 * W, y1 * H, x2 * W, y2 * H] - 0.5``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelstore.errors import BoxError

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)


def check_boxes(boxes: ArrayLike, count: int) -> NDArray[np.float64]:
    """Sort each axis of the boxes, clip them to the image, and refuse what is no box.

    Parameters
    ----------
    boxes
        ``[count, 4]``: ``(x1, y1, x2, y2)``, fractions of the image's width and height; x to the right, y down.
        ``x1 > x2`` (or ``y1 > y2``) is a mirrored view of the same region.

    Returns
    -------
    float64 ``[count, 4]``, ``0 <= x1 < x2 <= 1`` and ``0 <= y1 < y2 <= 1``.

    Raises
    ------
    BoxError
        Wrong shape, values that are not finite, or nothing left inside the image.
    """
    try:
        given = np.ascontiguousarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxError(f"boxes: expected numbers, [B, 4] (x1, y1, x2, y2), got {_short(boxes)}") from error
    if given.shape != (count, 4):
        raise BoxError(f"boxes: expected shape ({count}, 4), one (x1, y1, x2, y2) a key, got {given.shape}")
    low = np.maximum(np.minimum(given[:, :2], given[:, 2:]), 0.0)
    high = np.minimum(np.maximum(given[:, :2], given[:, 2:]), 1.0)  # wholly outside: then low is not below high
    if not ((low < high).all() and np.isfinite(given).all()):
        good = np.isfinite(given).all(axis=1) & (low < high).all(axis=1)
        row = int(np.argmin(good))
        raise BoxError(
            f"boxes[{row}] = {given[row].tolist()}: expected four finite fractions of the image's width and height, "
            "x1 != x2 and y1 != y2, that leave an area inside [0, 1]"
        )
    return np.concatenate([low, high], axis=1)


def box_weights(boxes: NDArray[np.float64], map_size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return RoIAlign's weights of the rows, ``wy [B, H]``, and of the columns, ``wx [B, W]``, for checked boxes."""
    height, width = map_size
    return _axis_weights(boxes[:, 1], boxes[:, 3], height), _axis_weights(boxes[:, 0], boxes[:, 2], width)


def _axis_weights(low: NDArray[np.float64], high: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    # The order of operations is that of torchvision's kernel: ceil() below turns a last-bit difference into a sample more.
    start = low * size - 0.5
    extent = np.maximum((high * size - 0.5) - start, 1.0)
    samples = np.ceil(extent)
    step = np.arange(int(samples.max(initial=1)))
    at = start[:, None] + (step + 0.5) * extent[:, None] / samples[:, None]
    weight = np.where(step < samples[:, None], 1.0 / samples[:, None], 0.0)
    at = at.clip(0.0, size - 1.0)
    cell = np.minimum(at.astype(np.int64), max(size - 2, 0))
    upper = (at - cell) * weight
    first = np.arange(len(low))[:, None] * size + cell
    total = len(low) * size
    sums: NDArray[np.float64] = np.bincount(first.ravel(), (weight - upper).ravel(), total).astype(np.float64)
    if size > 1:
        sums += np.bincount(first.ravel() + 1, upper.ravel(), total)
    return sums.reshape(len(low), size)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
