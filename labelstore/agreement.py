"""How often a store's labels of whole images are the labels that the images came with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.reader import LabelMapReader
from labelstore.schema import Status, StoreInfo

SAMPLE = 4096
_BATCH = 256
_TOP = 5


@dataclass(frozen=True)
class Agreement:
    """Shares of images whose own label is the best class of the whole image (``top1``), or among the best five (``top5``).

    Classes of one and the same label share the worst of their places: a class that the maps do not keep is among no best
    five. ``images`` were looked at.
    """

    top1: float
    top5: float
    images: int


def label_agreement(reader: LabelMapReader, rows: NDArray[np.int64] | None = None, most: int = SAMPLE) -> Agreement | None:
    """Compare the labels of whole images with the images' own, over at most so many rows, evenly spread.

    None where images have no labels, or labels that are no classes of the store: folders must be named as its class ids, its
    class names or its class numbers are; labels in numbers are taken as class numbers.
    """
    classes = target_classes(reader.info)
    if classes is None:
        return None
    labels = reader.targets
    rows = np.arange(len(reader)) if rows is None else rows
    own = own_classes(labels[rows], classes)
    rows = rows[(own >= 0) & (reader.status()[rows] == Status.DONE)]
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    if not len(rows):
        return None
    own, hits = own_classes(labels[rows], classes), np.zeros(2)
    for start in range(0, len(rows), _BATCH):
        part, truth = rows[start : start + _BATCH], own[start : start + _BATCH]
        soft = reader.pool(part, np.tile((0.0, 0.0, 1.0, 1.0), (len(part), 1)))
        place = (soft >= soft[np.arange(len(part)), truth][:, None]).sum(axis=1)
        hits += (place <= 1).sum(), (place <= _TOP).sum()
    top1, top5 = (hits / len(rows)).tolist()
    return Agreement(top1, top5, len(rows))


def target_classes(info: StoreInfo) -> NDArray[np.int64] | None:
    """Return the store's class of each of the images' labels, -1 where it has none; None if it has none of them."""
    if info.target_names is None:
        return np.arange(info.num_classes)
    for names in (info.class_ids, info.class_names, tuple(map(str, range(info.num_classes)))):
        counts = Counter(names or ())
        places = {name: place for place, name in enumerate(names or ()) if counts[name] == 1}
        found = np.array([places.get(name, -1) for name in info.target_names], np.int64)
        if (found >= 0).any():
            return found
    return None


def own_classes(labels: NDArray[np.int32], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the store's class of each label ``[N]``, -1 where there is none; ``classes`` are those of `target_classes`."""
    known = (labels >= 0) & (labels < len(classes))
    return np.where(known, classes[np.where(known, labels, 0)], -1)
