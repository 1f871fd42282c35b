"""The store that is served, and all that is kept of it meanwhile."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import zip_longest
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import ClassMap
from labelstore.cli.mapview import class_name
from labelstore.cli.web.surveying import Surveyor
from labelstore.pipelines.photographs import Photographs
from labelstore.reader import LabelMapReader
from labelstore.statistics import images_by_class
from labelstore.summary import StoreCounts, count_rows

T = TypeVar("T")
_COUNTS_SECONDS = 10.0
_BATCHES_A_COUNT = 50
_PICTURE_BYTES, _KEPT_SELECTIONS = 2**25, 8


class Kept(Generic[T]):
    """The last values that were made, up to a total size. Two threads may make the same one."""

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._most, self._size, self._total, self._lock = most, size, 0, Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a value, made if it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._size(value)
            while self._total > self._most and len(self._values) > 1:
                self._total -= self._size(self._values.popitem(last=False)[1])
        return value


class Site:
    """What endpoints answer from. Safe to share between threads.

    Parameters
    ----------
    location
        The store: a path or a URL.
    images
        Where its photographs lie, if not as it recorded.
    class_map
        Which classes the images' own labels are: see `own_labels`.
    """

    def __init__(self, location: str, images: str | None = None, class_map: ClassMap | None = None) -> None:
        self.location = location
        self.reader = LabelMapReader(location)
        self.info = self.reader.info
        self.targets = self.reader.targets
        self.photographs = Photographs(self.info, images)
        self.surveyor = Surveyor(self.reader, class_map, location)
        self.pictures: Kept[bytes] = Kept(_PICTURE_BYTES, len)
        self.selections: Kept[NDArray[np.int32]] = Kept(_KEPT_SELECTIONS, lambda _: 1)
        self._counts: tuple[float, StoreCounts] | None = None
        self._statuses: tuple[float, NDArray[np.uint8]] | None = None
        self._class_counts: tuple[tuple[int, bool], NDArray[np.int64]] | None = None
        self._labels: tuple[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]] | None = None
        self.labels_served = 0
        names, ids = self.info.class_names or (), self.info.class_ids or ()
        self.searched_names = [f"{name} {other}".casefold() for name, other in zip_longest(names, ids, fillvalue="")]
        self._starts = np.cumsum([0, *(extent.stop - extent.start for extent in self.info.all_extents)]).tolist()

    @property
    def identity(self) -> str:
        """What tells this store from another, and from what it was before it was made anew."""
        return f"{self.info.created} {self.info.annotator.weights_sha256} {self.info.encoding} {self.info.num_rows}"

    def counts(self) -> StoreCounts:
        """Return the store's rows by status and its size, of the last seconds."""
        kept, now = self._counts, time.monotonic()
        if kept is None or now - kept[0] > _COUNTS_SECONDS:
            kept = self._counts = now, count_rows(self.reader, self.location)
        return kept[1]

    def statuses(self) -> NDArray[np.uint8]:
        """Return what all rows hold, of the last seconds."""
        kept, now = self._statuses, time.monotonic()
        if kept is None or now - kept[0] > _COUNTS_SECONDS:
            kept = self._statuses = now, self.reader.status()
        return kept[1]

    def statuses_changed(self) -> float:
        """When that was read."""
        self.statuses()
        return self._statuses[0] if self._statuses else 0.0

    def disagrees(self) -> NDArray[np.bool_]:
        """Return which images' best class is not that of their single label, ``[N]``, as far as is known."""
        return self._judged()[1]

    def _judged(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which labels can be held against maps, and which of these differ; looked at again when more is known."""
        version, kept = self.surveyor.version, self._labels
        if kept is None or kept[0] != version:
            survey = self.surveyor.survey
            kept = self._labels = version, (survey.labelled, survey.disagrees)
        return kept[1]

    def class_counts(self) -> NDArray[np.int64]:
        """Return how many images show each class, ``[C]``, as far as is known."""
        version = self.surveyor.version // _BATCHES_A_COUNT, self.surveyor.finished.is_set()
        kept = self._class_counts
        if kept is None or kept[0] != version:
            kept = self._class_counts = version, images_by_class(self.surveyor.survey)
        return kept[1]

    def image_rows(self, start: int, stop: int) -> list[int]:
        """Return rows of the store's images by their place among them, holes left out."""
        places = range(start, min(stop, self.info.num_images))
        return [self._row_at(place) for place in places]

    def all_rows(self) -> NDArray[np.int32]:
        """Return the rows of all images that the survey can know of."""
        most = len(self.surveyor.survey)
        parts = [np.arange(extent.start, min(extent.stop, most), dtype=np.int32) for extent in self.info.all_extents]
        return np.concatenate(parts)

    def target(self, row: int) -> dict[str, Any] | None:
        """Return the single label that an image came with; None where it has none."""
        number = int(self.targets[row])
        if number < 0:
            return None
        names = self.info.target_names
        own = int(self.surveyor.survey.own[row]) if row < len(self.surveyor.survey) else -1
        name = names[number] if names and number < len(names) else str(number)
        known = class_name(own, self.info.class_names) if own >= 0 else None
        return {"label": number, "name": name, "class": own if own >= 0 else None, "class_name": known}

    def is_compared(self, row: int) -> bool:
        """Whether an image's single label can be held against its map, as far as is known."""
        survey = self.surveyor.survey
        if row >= len(survey) or survey.own[row] < 0:
            return False
        return not survey.known[row] or bool(self._judged()[0][row])

    def _row_at(self, place: int) -> int:
        extent = bisect_right(self._starts, place) - 1
        return self.info.all_extents[extent].start + place - int(self._starts[extent])
