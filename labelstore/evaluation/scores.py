"""Scores of classes out of a store's maps, for images as wholes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import WHOLE_IMAGE
from labelstore.errors import OptionError
from labelstore.reader import LabelMapReader

SCORES = ("image", "location")
_MOST_LABELS = 1 << 13
"""Soft labels pooled at a time: 33 MB of a thousand classes."""

Batch = tuple[NDArray[np.int64], NDArray[np.float32]]


def score_batches(reader: LabelMapReader, rows: NDArray[np.int64], by: str) -> Iterator[Batch]:
    """Yield rows and their classes' scores ``[B, C]``, in [0, 1].

    Parameters
    ----------
    by
        ``image``: the soft label of the whole image. ``location``: the highest probability that a class has at any location of
        the map; an image of two objects can have 1 for both.
    """
    if by not in SCORES:
        raise OptionError(f"by: expected {' or '.join(map(repr, SCORES))}, got {by!r}")
    boxes = np.array([WHOLE_IMAGE]) if by == "image" else _locations(*reader.map_size)
    size = max(1, _MOST_LABELS // len(boxes))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        soft = reader.pool(np.repeat(part, len(boxes)), np.tile(boxes, (len(part), 1)))
        yield part, soft.reshape(len(part), len(boxes), -1).max(axis=1)


def _locations(height: int, width: int) -> NDArray[np.float64]:
    """A box for every location: pooling it gives that location's own logits."""
    y, x = np.divmod(np.arange(height * width), width)
    return np.stack([x / width, y / height, (x + 1) / width, (y + 1) / height], axis=1)
