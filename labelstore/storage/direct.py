"""Stores whose files are laid out as this project writes them: what is the same wherever they lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec, StoreInfo, index_arrays
from labelstore.scratch import Spares
from labelstore.storage.base import ChangedError, DamagedRowError, UsePart
from labelstore.storage.chunks import MISSING, Whole, decode_chunk, largest_file, wrong_seal
from labelstore.storage.frames import FrameError, decode_frame, decode_frames, usual_header
from labelstore.storage.metadata import ArrayMeta
from labelstore.storage.origin import ids_seal, origin_problem, split_commit
from labelstore.storage.plain import check_plain, check_plains
from labelstore.storage.table import STATUS, RowTable, check_status, in_memory
from labelstore.threads import ProcessLock, in_parts

_TRIES = 8
Index = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Offsets and lengths of a shard file's chunks."""


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of one array lie; what is looked up for every row, kept bare."""

    place: int
    header: bytes | tuple[()]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    offsets: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.unsignedinteger[Any]]


class DirectSource(ABC):
    """A store without Zarr: rows by the shards' own indexes, checked and decoded here. How bytes come is its heirs' affair.

    Threads may share one: what is known of shards stands in a table that is written under a lock. A shard that was made again
    is entered again, and what a thread has read meanwhile is given up (`ChangedError`): the number of such changes is looked at
    before and after.
    """

    direct = True
    far = False
    """Whether to read a file again costs more than to know of all shards what few may need."""

    def __init__(self, where: str, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        self.where = where
        self._info = info
        self._arrays = dict(arrays)
        self._committed = files
        self._table = RowTable(info, files, where)
        self._by_row = [spec for spec in files if spec.by_row]
        self._spares = Spares()
        self._lock = ProcessLock()
        self._changes = 0
        self._ids_seals: dict[int, int] = {}
        self._chunks = {
            spec.name: Chunks(
                place,
                usual_header(spec.row_bytes) if spec.compressed else (),  # nothing starts with any of none
                spec.numpy_dtype,
                spec.row_shape,
                self._table.offsets[spec.name],
                self._table.lengths[spec.name],
            )
            for place, spec in enumerate(self._by_row)
        }

    @abstractmethod
    def _load_now(self, shards: Sequence[int]) -> None:
        """Read what commits seal, check it, and enter it into the table; mark the holes of shards without a commit."""

    @abstractmethod
    def _read_commits(self, shards: Sequence[int]) -> list[NDArray[np.uint64] | None]:
        """Read shards' commits anew, as they are entered into the table."""

    @abstractmethod
    def _forget(self, shard: int) -> None:
        """Forget what is kept of a shard beside the table. The caller holds the lock."""

    @abstractmethod
    def _read_frames(self, chunked: Sequence[Chunks], rows: NDArray[np.int64]) -> list[list[bytes]]:
        """Read rows' frames, for each array in the order of the rows."""

    @abstractmethod
    def _each_chunk(self, spec: ArraySpec, shards: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Return all rows of each shard's file of an array that has one chunk a shard, those of holes too."""

    def is_committed(self, shard: int) -> bool:
        """See `labelstore.storage.base.Source.is_committed`."""
        if not self._table.loaded[shard]:
            self._load([shard])
        return bool(self._table.loaded[shard])

    def is_loaded(self, shard: int) -> bool:
        """Whether a shard has been found committed."""
        return bool(self._table.loaded[shard])

    def renew(self, shards: Sequence[int]) -> bool:
        """See `labelstore.storage.base.Source.renew`."""
        commits = self._read_commits(shards)
        with self._lock():
            changed = [shard for shard, commit in zip(shards, commits, strict=True) if not self._table.is_of(shard, commit)]
            for shard in changed:
                self._table.forget(shard)
                self._forget(shard)
            self._changes += bool(
                changed
            )  # behind the table: a thread that sees the new number sees that the shard is not loaded
        return bool(changed)

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """See `labelstore.storage.base.Source.seals`."""
        return self._table.seals[shards]

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `labelstore.storage.base.Source.status`."""
        shards = rows // self._info.shard_size
        loaded = self._table.loaded[shards]
        if not loaded.all():
            self._load(np.unique(shards[~loaded]).tolist())
        return self._table.status[rows]

    def row_status(self, row: int) -> int:
        """See `labelstore.storage.base.Source.row_status`."""
        return self._table.status.item(row)

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """See `labelstore.storage.base.Source.each_part`."""
        changes = self._changes
        if changes and not self._table.loaded[rows // self._info.shard_size].all():
            raise ChangedError
        frames = self._read_frames([self._chunks[spec.name] for spec in specs if spec.by_row], rows)

        def work(part: slice) -> None:
            found, unread = {}, iter(frames)
            count = part.stop - part.start
            with self._spares.lend(count * sum(spec.row_bytes for spec in specs if spec.by_row)) as room:
                for spec in specs:
                    if spec.by_row:
                        mine, room = room[: count * spec.row_bytes], room[count * spec.row_bytes :]
                        found[spec.name] = self._decode(spec, rows[part], next(unread)[part], mine)
                    elif spec.resident:
                        found[spec.name] = self._table.values[spec.name][rows[part]]
                    else:
                        found[spec.name] = self._from_files(spec, rows[part])
                if self._changes != changes:
                    raise ChangedError
                use(part, found)

        in_parts(work, len(rows), threads if any(spec.compressed and spec.by_row for spec in specs) else 1)

    def _load(self, shards: Sequence[int]) -> None:
        """Load shards; again while their commits change, if files do not fit them: they may be made again at this moment."""
        seen: list[bytes | None] | None = None
        for _ in range(_TRIES):
            try:
                self._load_now(shards)
            except DamagedError:
                now = [None if commit is None else commit.tobytes() for commit in self._read_commits(shards)]
                if now == seen:
                    raise
                seen = now
            else:
                return
        self._load_now(shards)

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        info = self._info
        with in_memory(info, self.where):
            out = np.empty((info.num_rows, *spec.row_shape), spec.numpy_dtype)
        shards = range(info.num_shards)
        for shard, chunk in zip(shards, self._each_chunk(spec, shards), strict=True):
            rows = info.shard_rows(shard)  # a shard at a time, holes too: rows that no file holds must cost no memory
            out[rows.start : rows.stop] = chunk[: len(rows)]
            if self.far and spec.name == info.ids_array and info.store_id is not None:  # not to be asked for again
                self._ids_seals[shard] = ids_seal(chunk[: len(rows)])
            out[rows.stop : (shard + 1) * info.shard_size] = spec.fill
        return out

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        return next(self._each_chunk(spec, [shard]))[: len(self._info.shard_rows(shard))]

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return f"{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"

    def _decode(self, spec: ArraySpec, rows: NDArray[np.int64], frames: Sequence[bytes], out: memoryview) -> NDArray[Any]:
        """Decode frames, into ``out`` where they are compressed."""
        try:
            if not spec.compressed:
                return check_plains(frames, spec.row_bytes).view(spec.numpy_dtype).reshape(len(rows), *spec.row_shape)
            decode_frames(frames, spec.row_bytes, out)
        except FrameError:
            for row, frame in zip(rows.tolist(), frames, strict=True):
                try:
                    decode_row(spec, frame)
                except FrameError as error:
                    raise self._damaged(spec, row, error) from error
            raise
        return np.frombuffer(out, spec.numpy_dtype).reshape(len(rows), *spec.row_shape)

    def _damaged(self, spec: ArraySpec, row: int, error: Exception) -> DamagedRowError:
        path = self._path(spec, row // self._info.shard_size)
        chunks = self._chunks[spec.name]
        offset, length = chunks.offsets.item(row), chunks.lengths.item(row)
        if length == MISSING:
            return DamagedRowError(row, f"{path}: no chunk for the row")
        return DamagedRowError(row, f"{path}: the chunk at offset {offset} ({length} bytes) is damaged: {error}")

    def _from_files(self, spec: ArraySpec, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of an array that does not stay in memory (``errors``), a shard at a time."""
        out = np.empty((len(rows), *spec.row_shape), spec.numpy_dtype)
        shards, locals_ = np.divmod(rows, self._info.shard_size)
        wanted = np.unique(shards).tolist()
        for shard, chunk in zip(wanted, self._each_chunk(spec, wanted), strict=True):
            here = shards == shard
            out[here] = chunk[locals_[here]]
        return out

    def _counts(self, shard: int, commit: NDArray[np.uint64]) -> bool:
        """Whether there is a commit, ``[files, 4]`` or a row more, of this store and of the ids that the rows have."""
        files, origin = split_commit(commit, self._info)
        return files is not None and not (origin and origin_problem(origin, self._info, self.ids_seals([shard]).get(shard)))

    def ids_seals(self, shards: Sequence[int]) -> dict[int, int]:
        """Return the seals of shards' ids, those left out whose ids cannot be read: they contradict no commit."""
        ids = index_arrays(self._info)[0]
        missing = [shard for shard in shards if shard not in self._ids_seals]
        try:
            for shard, chunk in zip(missing, self._each_chunk(ids, missing), strict=True):
                self._ids_seals[shard] = ids_seal(chunk[: len(self._info.shard_rows(shard))])
        except DamagedError:
            if len(missing) > 1:
                for shard in missing:
                    self.ids_seals([shard])
        return {shard: self._ids_seals[shard] for shard in shards if shard in self._ids_seals}

    def _path(self, spec: ArraySpec, shard: int) -> str:
        return f"{self.where}/{self.file_key(spec, shard)}"

    def _values(self, spec: ArraySpec, file: Whole) -> dict[str, NDArray[Any]]:
        """Return the small rows that stay in memory, by array, of one of a shard's committed files: none of others."""
        if not spec.resident:
            return {}
        size = self._info.shard_size
        found = decode_chunk(file.whole(largest_file(spec, size)), spec, size, file.path)
        if spec.name == STATUS:
            check_status(found, file.path)
        return {spec.name: found}


def check_seal(file: Whole, seal: list[int]) -> None:
    """Refuse a file that is not the one that was committed."""
    found = file.seal()
    if found != seal:
        raise DamagedError(f"{file.path}: not the file that was committed: {wrong_seal(seal, found)}")


def missing_file(path: str, shard: int) -> DamagedError:
    """Say that a committed file is not there."""
    return DamagedError(f"{path}: missing, though shard {shard} is committed")


def decode_row(spec: ArraySpec, data: bytes) -> bytes:
    """Return what a row's chunk holds."""
    return decode_frame(data, spec.row_bytes) if spec.compressed else check_plain(data, spec.row_bytes)
