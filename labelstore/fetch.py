"""From rows to the stored arrays of those rows, checked: the part of reading that every encoding shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays, find_encoding
from labelstore.errors import DamagedError, FailedRowError, FormatError, PendingRowError, StoreReadError
from labelstore.ids import IdTable, ImageIds
from labelstore.ids_on_disk import IdsOnDisk
from labelstore.labelmap import LabelMap
from labelstore.schema import IMAGE_SIZE, Status, StoreInfo, index_arrays
from labelstore.storage import ChangedError, DamagedRowError, Source, UsePart
from labelstore.threads import usual_threads

MOST_ID_BYTES, MOST_ID_FILES = 2**28, 2**14
"""Ids that are more are not loaded whole."""
_TRIES = 8
T = TypeVar("T")


class RowFetcher:
    """Reads rows of an open store. As safe to share as its source."""

    def __init__(self, source: Source, info: StoreInfo, threads: int | None = None) -> None:
        self.info = info
        self.encoding = find_encoding(info.encoding, source.where)
        self.where = source.where
        self._source = source
        self._specs = {spec.name: spec for spec in committed_arrays(info)}
        self._maps = self.encoding.arrays(info)
        self._threads = threads
        self._ids: IdTable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ids": None}  # tens of megabytes, read again faster than sent

    @property
    def ids(self) -> IdTable:
        """The table of ids, loaded on first use."""
        ids = self._ids
        return self.load_ids() if ids is None else ids  # two threads may both load it: the tables are equal

    def load_ids(self) -> IdTable:
        """Read the table of ids, or have it looked up on the disk if it is large."""
        info, source = self.info, self._source
        if info.num_rows * info.id_bytes > MOST_ID_BYTES or info.num_shards > MOST_ID_FILES:
            self._ids = IdsOnDisk(source, info)
        else:
            self._ids = ImageIds(source.index_array(index_arrays(info)[0]), self.where)
        return self._ids

    def targets(self) -> NDArray[np.int32]:
        """int32 ``[N]``: the folders' classes."""
        return self._source.index_array(index_arrays(self.info)[1])

    def shard_seals(self) -> NDArray[np.uint32]:
        """See `LabelMapReader.shard_seals`."""
        return self._source.seals(np.arange(self.info.num_shards))

    def maps(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the encoding's arrays, ``[B, ...]`` each, of rows that must be done.

        Raises
        ------
        PendingRowError, FailedRowError, DamagedError
        """
        if len(rows) == 1:
            return {name: part[np.newaxis] for name, part in self.map(int(rows[0])).items()}
        kept = {spec.name: np.empty((len(rows), *spec.row_shape), spec.numpy_dtype) for spec in self._maps}

        def keep(part: slice, found: dict[str, NDArray[Any]]) -> None:
            for name, values in found.items():
                kept[name][part] = values

        self.each_part(rows, keep)
        return kept

    def label_maps(self, rows: NDArray[np.int64]) -> LabelMap:
        """Return the label maps ``[B, K, H, W]`` of rows that must be done, decoded part by part. Raises as `maps`."""
        if len(rows) == 1:
            return self.encoding.decode(self.maps(rows), self.info)
        shape = (len(rows), self.info.top_k, *self.info.map_size)
        kept = LabelMap(np.empty(shape, np.uint16), np.empty(shape, np.float32))

        def keep(part: slice, found: dict[str, NDArray[Any]]) -> None:
            decoded = self.encoding.decode(found, self.info)
            kept.classes[part], kept.scores[part] = decoded.classes, decoded.scores

        self.each_part(rows, keep)
        return kept

    def each_part(self, rows: NDArray[np.int64], use: UsePart) -> None:
        """Hand the encoding's arrays to ``use`` in parts, each in the thread that has decoded it; else as `maps`.

        They are lent: what is to outlast ``use`` must be copied.
        """

        def check(part: slice, found: dict[str, NDArray[Any]]) -> None:
            problem = self.encoding.check(found, self.info)
            if problem is not None:
                raise DamagedError(f"{self.where}: {self._row_name(int(rows[part][problem[0]]))}: {problem[1]}")
            use(part, found)

        threads = self._threads or usual_threads()
        self._settled(rows, self._require_done, lambda: self._source.each_part(self._maps, rows, threads, check))

    def map(self, row: int) -> dict[str, NDArray[Any]]:
        """Return the encoding's arrays of one row, without the batch axis; else as `maps`."""
        if self._source.row_status(row) != Status.DONE:
            self._require_done(np.array([row]))
        try:
            return self._map(row)
        except (ChangedError, DamagedRowError, DamagedError):
            return self._settled(np.array([row]), self._require_done, lambda: self._map(row))

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return what rows hold, as `Status` numbers; rows of shards without a commit are pending."""
        return self._source.status(rows)

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return committed rows of one array, whatever their status.

        Raises
        ------
        PendingRowError, DamagedError
        """
        return self._settled(rows, self._require_committed, lambda: self._column(name, rows))

    def image_sizes(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return committed rows' image sizes, ``[B, 2]``: see `LabelMapReader.image_size`.

        Raises
        ------
        FormatError
            The store keeps none; else as `column`.
        """
        if not self.info.image_sizes:
            raise FormatError(
                f"{self.where}: expected a store that keeps image sizes (attribute 'image_sizes'), found one without the array "
                "'image_size': an older version made it, or its maps came without sizes"
            )
        return self.column(IMAGE_SIZE.name, rows)

    def error(self, row: int) -> str:
        """Return why a committed row failed; empty if it did not."""
        return bytes(self.column("errors", np.array([row]))[0]).rstrip(b"\0").decode(errors="replace")

    def _map(self, row: int) -> dict[str, NDArray[Any]]:
        found = self._source.row(self._maps, row)
        problem = self.encoding.check(found, self.info)
        if problem is not None:
            raise DamagedError(f"{self.where}: {self._row_name(row)}: {problem[1]}")
        return found

    def _column(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        found: list[NDArray[Any]] = []
        self._source.each_part([self._specs[name]], rows, 1, lambda _, arrays: found.append(arrays[name].copy()))
        return found[0]

    def _settled(self, rows: NDArray[np.int64], require: Callable[[NDArray[np.int64]], None], read: Callable[[], T]) -> T:
        """Read rows that are as required; again, from that on, if their shards were made again since they were opened."""
        unchanged = False
        for _ in range(_TRIES):
            require(rows)
            try:
                return read()
            except ChangedError:
                continue
            except DamagedRowError as damage:
                if unchanged:
                    raise self._damaged(damage) from damage
                unchanged = not self._source.renew([damage.row // self.info.shard_size])
            except DamagedError:
                if unchanged:
                    raise
                unchanged = not self._source.renew(np.unique(rows // self.info.shard_size).tolist())
        raise StoreReadError(f"{self.where}: shards were made again {_TRIES} times while they were read; read again")

    def _require_committed(self, rows: NDArray[np.int64]) -> None:
        shards = np.unique(rows // self.info.shard_size)
        uncommitted = [shard for shard in shards.tolist() if not self._source.is_committed(shard)]
        if uncommitted:
            raise PendingRowError(self._pending(int(rows[np.argmax(rows // self.info.shard_size == uncommitted[0])])))

    def _require_done(self, rows: NDArray[np.int64]) -> None:
        status = self._source.status(rows)
        undone = status != Status.DONE
        if not undone.any():
            return
        place = int(np.argmax(undone))
        row = int(rows[place])
        if status[place] != Status.FAILED:
            raise PendingRowError(self._pending(row))
        if not self._source.renew([row // self.info.shard_size]):
            raise FailedRowError(f"{self.where}: {self._row_name(row)} has no label map: {self.error(row)}")
        self._require_done(rows)  # it was tried again since its shard was opened

    def _pending(self, row: int) -> str:
        return f"{self.where}: {self._row_name(row)} is pending: its label map has not been made; run annotate again"

    def _row_name(self, row: int) -> str:
        return f"row {row} ({self.ids[row][:200]!r})"

    def _damaged(self, damage: DamagedRowError) -> DamagedError:
        """Give damage the image's name."""
        return DamagedError(f"{self._row_name(damage.row)}: {damage.message}")
