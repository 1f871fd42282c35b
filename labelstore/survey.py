"""What a store's maps say of its images, a few numbers a row: the columns that searches, statistics and reports read.

One pass over the store, batch by batch (`Survey.add`), so that it can go on beside other work and be looked at on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import WHOLE_IMAGE
from labelstore.class_map import ClassMap
from labelstore.labelmap import location_probabilities
from labelstore.own_labels import OwnLabels, own_labels
from labelstore.reader import LabelMapReader
from labelstore.schema import NO_CLASS

PRESENT = 6
"""Classes kept of an image: those that are the best one at most locations."""
SURE = 0.3
"""The least probability with which a location counts for its best class: below it no class is there."""
MOST_ROWS = 2**23
"""Rows of a survey at most: 30 bytes each."""
_SHARE_LEVELS = 255
COLUMNS = ("best", "best_probability", "own_probability", "entropy", "present", "shares")
"""What `Survey.add` finds, by row."""


class Survey:
    """Columns by row. One thread adds; others may read meanwhile: a row counts once `known` says so.

    Parameters
    ----------
    reader
        The store; of its rows the first `MOST_ROWS` are kept.
    class_map
        Which classes of the store the images' labels are: see `own_labels`. Where a label has several, the first one of these
        counts for all in ``best`` and ``own``.

    Attributes
    ----------
    known
        bool ``[N]``: whether the row has been looked at.
    best, best_probability
        uint16, float16 ``[N]``: the best class of the whole image's soft label.
    labels
        int32 ``[N]``: the labels that the images came with, -1 where there is none.
    own, own_probability
        int32 ``[N]``: the store's class of the image's single label, -1 where it has none; float16 ``[N]``: its share of the
        soft label, NaN where it has none.
    entropy
        float16 ``[N]``: of the whole image's soft label, in nats.
    present, shares
        uint16, uint8 ``[N, PRESENT]``: the classes that are the best one somewhere, surely (`SURE`), by the
        share of such locations (of 255), largest first; 65535 and 0 where there are fewer.
    """

    def __init__(self, reader: LabelMapReader, class_map: ClassMap | None = None) -> None:
        rows = min(len(reader), MOST_ROWS)
        self.num_classes = reader.num_classes
        self.known = np.zeros(rows, np.bool_)
        self.best = np.full(rows, NO_CLASS, np.uint16)
        self.best_probability = np.zeros(rows, np.float16)
        self._labels = own_labels(reader.info, class_map) or OwnLabels(np.empty(0, np.int64))
        self.own = self._labels.of(reader.targets[:rows]).astype(np.int32)
        self._told = class_map is not None
        self.labels = reader.targets[:rows]
        self.own_probability = np.full(rows, np.nan, np.float16)
        self.entropy = np.zeros(rows, np.float16)
        self.present = np.full((rows, PRESENT), NO_CLASS, np.uint16)
        self.shares = np.zeros((rows, PRESENT), np.uint8)

    def __len__(self) -> int:
        return len(self.known)

    def add(self, reader: LabelMapReader, rows: NDArray[np.int64]) -> None:
        """Look at some rows, which must be done. Raises as `LabelMapReader.pool`."""
        soft = self.merge(reader.pool(rows, np.tile(WHOLE_IMAGE, (len(rows), 1))))
        self.best[rows] = soft.argmax(axis=1)
        self.best_probability[rows] = soft.max(axis=1)
        self.entropy[rows] = entropy(soft)
        own = self.own[rows]
        self.own_probability[rows] = np.where(own >= 0, soft[np.arange(len(rows)), np.maximum(own, 0)], np.nan)
        maps = reader.read(rows)
        sure = location_probabilities(maps.classes, maps.scores, self.num_classes)[:, 0] >= SURE
        self.present[rows], self.shares[rows] = present_classes(np.where(sure, maps.classes[:, 0], np.uint16(NO_CLASS)))
        self.known[rows] = True

    def merge(self, soft: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return soft labels in which the classes of one label are one; see `OwnLabels.merge`."""
        return self._labels.merge(soft)

    @property
    def merging(self) -> NDArray[np.int64]:
        """The class that each of the store's counts as, int64 ``[C]``; see `OwnLabels.merged`."""
        merged = self._labels.merged
        return np.arange(self.num_classes) if merged is None else merged

    def has_class(self, chosen: int, share: float = 0.0) -> NDArray[np.bool_]:
        """Mark the rows with a class that is the best one in at least such a share of the locations."""
        return self.has_any([chosen], share)

    def has_any(self, classes: Sequence[int], share: float = 0.0) -> NDArray[np.bool_]:
        """Mark the rows with at least one of several classes; as `has_class`."""
        wanted = np.zeros(NO_CLASS + 1, np.bool_)
        wanted[list(classes)] = True
        there: NDArray[np.bool_] = wanted[self.present] & (self.shares >= least_share(share))
        found: NDArray[np.bool_] = np.logical_or.reduce(there, axis=1)
        return found

    def class_count(self, share: float) -> NDArray[np.int64]:
        """Return how many classes have at least such a share of the locations, by row."""
        found: NDArray[np.int64] = (self.shares >= least_share(share)).sum(axis=1, dtype=np.int64)
        return found

    @property
    def misnamed(self) -> NDArray[np.bool_]:
        """Mark the classes ``[C]`` that labels have the name of, and mean another by: none of the images with such a label has
        it as its best class, and most of them have one that is no label's. A label ``cup`` of images of espresso, say. None
        where a class map says which classes labels are."""
        if self._told:
            return np.zeros(self.num_classes, np.bool_)
        labelled = self.known & (self.own >= 0)
        own, best = self.own[labelled], self.best[labelled]
        named = np.zeros(NO_CLASS + 1, np.bool_)
        named[self.own[self.own >= 0]] = True
        images, right, beyond = (
            np.bincount(own[chosen], minlength=self.num_classes) for chosen in (slice(None), own == best, ~named[best])
        )
        found: NDArray[np.bool_] = (right == 0) & (2 * beyond > images)
        return found

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Mark the known rows whose image has a label that can be held against its map: a class of the store, by more than its
        name (`misnamed`)."""
        found: NDArray[np.bool_] = self.known & (self.own >= 0)
        found[found] = ~self.misnamed[self.own[found]]
        return found

    @property
    def left_out(self) -> NDArray[np.bool_]:
        """Mark the known rows whose image has a label that cannot."""
        found: NDArray[np.bool_] = self.known & (self.labels >= 0) & ~self.labelled
        return found

    @property
    def disagrees(self) -> NDArray[np.bool_]:
        """Mark the known rows whose best class is not the one of the image's single label."""
        found: NDArray[np.bool_] = self.labelled & (self.best != self.own)
        return found


def entropy(soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the entropy of soft labels ``[B, C]``, in nats."""
    found: NDArray[np.float32] = -(soft * np.log(np.maximum(soft, np.float32(1e-30)))).sum(axis=1)
    return found


def present_classes(best: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return of best classes ``[B, H, W]`` (65535: none) the most frequent ones and their shares; see `Survey`."""
    count, locations = len(best), best[0].size
    keys = (np.arange(count, dtype=np.int64)[:, None] << 16) | best.reshape(count, -1)
    found, times = np.unique(keys, return_counts=True)
    rows, classes = found >> 16, found & 0xFFFF
    there = classes != NO_CLASS
    rows, classes, times = rows[there], classes[there], times[there]
    order = np.lexsort((classes, -times, rows))
    rows, classes, times = rows[order], classes[order], times[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < PRESENT
    present = np.full((count, PRESENT), NO_CLASS, np.uint16)
    shares = np.zeros((count, PRESENT), np.uint8)
    present[rows[kept], rank[kept]] = classes[kept]
    # Rounded up: a class that is anywhere has a share.
    shares[rows[kept], rank[kept]] = np.ceil(times[kept] * (_SHARE_LEVELS / locations))
    return present, shares


def least_share(share: float) -> int:
    """The smallest number of 255 that stands for at least a share; 1 for any."""
    return max(int(np.ceil(share * _SHARE_LEVELS)), 1)
