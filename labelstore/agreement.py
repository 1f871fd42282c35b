"""How often a store's labels of whole images are the labels that the images came with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import ClassMap
from labelstore.own_labels import OwnLabels, own_labels
from labelstore.reader import LabelMapReader
from labelstore.schema import Status

SAMPLE = 4096
_BATCH = 256
_TOP = 5


@dataclass(frozen=True)
class Agreement:
    """Shares of images whose own label is the best class of the whole image (``top1``), or among the best five (``top5``).

    Classes of one and the same label share the worst of their places: a class that the maps do not keep is among no best
    five. ``images`` were looked at; ``left_out`` have labels that are no class of the store.
    """

    top1: float
    top5: float
    images: int
    left_out: int = field(default=0, compare=False)


def label_agreement(
    reader: LabelMapReader,
    rows: NDArray[np.int64] | None = None,
    most: int = SAMPLE,
    class_map: ClassMap | None = None,
) -> Agreement | None:
    """Compare the labels of whole images with the images' own, over at most so many rows, evenly spread.

    None where images have no labels, or labels that are no classes of the store: see `own_labels`, which ``class_map`` is for.
    """
    known = own_labels(reader.info, class_map)
    if known is None:
        return None
    labels = reader.targets
    rows = np.arange(len(reader)) if rows is None else rows
    own, done = known.of(labels[rows]), reader.status()[rows] == Status.DONE
    left_out = int(np.count_nonzero(done & (labels[rows] >= 0) & (own < 0)))
    rows = rows[(own >= 0) & done]
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    if not len(rows):
        return None
    hits = np.zeros(2)
    for start in range(0, len(rows), _BATCH):
        hits += _hits(reader, rows[start : start + _BATCH], known)
    top1, top5 = (hits / len(rows)).tolist()
    return Agreement(top1, top5, len(rows), left_out)


def _hits(reader: LabelMapReader, rows: NDArray[np.int64], known: OwnLabels) -> NDArray[np.float64]:
    """Of how many images the label is the best, and among the best five."""
    soft = known.merge(reader.pool(rows, np.tile((0.0, 0.0, 1.0, 1.0), (len(rows), 1))))
    own = soft[np.arange(len(rows)), known.of(reader.targets[rows])]
    place = (soft >= own[:, None]).sum(axis=1)
    return np.array([(place <= 1).sum(), (place <= _TOP).sum()], np.float64)
