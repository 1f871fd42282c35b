"""From rows to the stored arrays of those rows, checked: the part of reading that every encoding shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays, find_encoding
from labelstore.errors import DamagedError, FailedRowError, PendingRowError
from labelstore.ids import ImageIds
from labelstore.schema import Status, StoreInfo, index_arrays
from labelstore.storage import DamagedRowError, Shard, Source

T = TypeVar("T")


class RowFetcher:
    """Reads rows of an open store, a shard at a time. As safe to share as its source."""

    def __init__(self, source: Source, info: StoreInfo) -> None:
        self.info = info
        self.encoding = find_encoding(info.encoding, source.where)
        self.where = source.where
        self._source = source
        self._specs = {spec.name: spec for spec in committed_arrays(info)}
        self._maps = self.encoding.arrays(info)
        self._ids: ImageIds | None = None

    @property
    def ids(self) -> ImageIds:
        """The table of ids, loaded on first use."""
        if self._ids is None:  # two threads may both load it: the tables are equal
            self._ids = ImageIds(self._source.index_array(index_arrays(self.info)[0]), self.where)
        return self._ids

    def targets(self) -> NDArray[np.int32]:
        """int32 ``[N]``: the folders' classes."""
        return self._source.index_array(index_arrays(self.info)[1])

    def maps(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the encoding's arrays, ``[B, ...]`` each, of rows that must be done.

        Raises
        ------
        PendingRowError, FailedRowError, DamagedError
        """
        out = {spec.name: np.empty((len(rows), *spec.row_shape), spec.numpy_dtype) for spec in self._maps}
        for shard, places, locals_ in self._by_shard(rows):
            opened = self._open(shard, locals_)
            for spec in self._maps:
                out[spec.name][places] = self._named(shard, _reading(opened, spec, locals_))
        problem = self.encoding.check(out, self.info)
        if problem is not None:
            raise DamagedError(f"{self.where}: {self._row_name(int(rows[problem[0]]))}: {problem[1]}")
        return out

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return what rows hold, as `Status` numbers; rows of shards without a commit are pending."""
        found = np.full(len(rows), Status.PENDING, np.uint8)
        for shard, places, locals_ in self._by_shard(rows):
            opened = self._source.open_shard(shard)
            if opened is not None:
                found[places] = opened.status[locals_]
        return found

    def column(self, name: str, row: int) -> NDArray[Any]:
        """Return one committed row of one array, whatever its status."""
        shard, local = divmod(row, self.info.shard_size)
        opened = self._source.open_shard(shard)
        if opened is None:
            raise PendingRowError(self._pending(row))
        values: NDArray[Any] = self._named(shard, _reading(opened, self._specs[name], np.array([local])))[0]
        return values

    def error(self, row: int) -> str:
        """Return why a committed row failed; empty if it did not."""
        return bytes(self.column("errors", row)).rstrip(b"\0").decode(errors="replace")

    def _by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        """Yield shard, places in the batch and local rows, each shard once, rows in ascending order."""
        shards, locals_ = np.divmod(rows, self.info.shard_size)
        order = np.argsort(rows, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            if len(places):
                yield int(shards[places[0]]), places, locals_[places]

    def _open(self, shard: int, locals_: NDArray[np.int64]) -> Shard:
        """Open a shard in which all of ``locals_`` must be done."""
        opened = self._source.open_shard(shard)
        first = shard * self.info.shard_size
        if opened is None:
            raise PendingRowError(self._pending(first + int(locals_[0])))
        status = opened.status[locals_]
        if (status == Status.DONE).all():
            return opened
        row = first + int(locals_[np.argmax(status != Status.DONE)])
        if opened.status[row - first] == Status.FAILED:
            raise FailedRowError(f"{self.where}: {self._row_name(row)} has no label map: {self.error(row)}")
        raise PendingRowError(self._pending(row))

    def _pending(self, row: int) -> str:
        return f"{self.where}: {self._row_name(row)} is pending: its label map has not been made; run annotate again"

    def _row_name(self, row: int) -> str:
        return f"row {row} ({self.ids[row]!r})"

    def _named(self, shard: int, read: Callable[[], T]) -> T:
        """Run a read; damage gets the image's name."""
        try:
            return read()
        except DamagedRowError as damage:
            row = shard * self.info.shard_size + damage.local
            raise DamagedError(f"{self._row_name(row)}: {damage.message}") from damage


def _reading(shard: Shard, spec: Any, locals_: NDArray[np.int64]) -> Callable[[], NDArray[Any]]:
    return lambda: shard.rows(spec, locals_)
