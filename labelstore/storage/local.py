"""The fast path: a store on a local file system, read without Zarr."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.scratch import Spares
from labelstore.storage.base import DamagedRowError, UsePart
from labelstore.storage.chunks import DataFile, decode_chunk, largest_chunk, largest_file, read_chunk, read_index, wrong_seal
from labelstore.storage.frames import FrameError, decode_frame, decode_frames, decode_usual, usual_header
from labelstore.storage.metadata import ArrayMeta, commits_spec
from labelstore.storage.openfiles import Files, OpenFiles
from labelstore.storage.plain import check_plain, check_plains
from labelstore.storage.table import STATUS, RowTable, check_status, in_memory
from labelstore.threads import in_parts


@dataclass(frozen=True)
class _Chunks:
    """Where the chunks of one array lie; what `LocalSource` looks up for every row, kept bare."""

    place: int
    header: bytes | tuple[()]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    offsets: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.unsignedinteger[Any]]


class LocalSource:
    """A store below a folder.

    Threads may share one: what is known of shards stands in a table that is written under a lock, once a shard; everything
    else is read by position. Forked processes share the table and the open files of their parent, unpickled copies start anew.
    """

    direct = True

    def __init__(self, path: Path, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        self.where = str(path)
        self._info = info
        self._arrays = dict(arrays)
        self._committed = files
        self._start()

    def _start(self) -> None:
        self._seals: dict[int, list[list[int]]] = {}
        self._table = RowTable(self._info, self._committed, self.where)
        self._by_row = [spec for spec in self._committed if spec.by_row]
        self._spares = Spares()
        self._files = OpenFiles(self._reopen, len(self._by_row))
        self._chunks = {
            spec.name: _Chunks(
                place,
                usual_header(spec.row_bytes) if spec.compressed else (),  # nothing starts with any of none
                spec.numpy_dtype,
                spec.row_shape,
                self._table.offsets[spec.name],
                self._table.lengths[spec.name],
            )
            for place, spec in enumerate(self._by_row)
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalSource, (Path(self.where), self._info, self._arrays, self._committed)

    def is_committed(self, shard: int) -> bool:
        """See `labelstore.storage.base.Source.is_committed`."""
        return bool(self._table.loaded[shard]) or self._load(shard)

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """See `labelstore.storage.base.Source.seals`."""
        return self._table.seals[shards]

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `labelstore.storage.base.Source.status`."""
        shards = rows // self._info.shard_size
        loaded = self._table.loaded[shards]
        if not loaded.all():
            for shard in np.unique(shards[~loaded]).tolist():
                self._load(shard)
        return self._table.status[rows]

    def row_status(self, row: int) -> int:
        """See `labelstore.storage.base.Source.row_status`."""
        return self._table.status.item(row)

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """See `labelstore.storage.base.Source.each_part`."""
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
                        found[spec.name] = self._from_disk(spec, rows[part])
                use(part, found)

        in_parts(work, len(rows), threads if any(spec.compressed and spec.by_row for spec in specs) else 1)

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        files = self._files.of(row // self._info.shard_size)
        found = {}
        for spec in specs:
            name = spec.name
            chunks = self._chunks.get(name)
            if chunks is None:
                found[name] = self._table.values[name][row] if spec.resident else self._from_disk(spec, np.array([row]))[0]
                continue
            data = os.pread(files[chunks.place].fd, chunks.lengths.item(row), chunks.offsets.item(row))
            try:
                decoded = decode_usual(data) if data.startswith(chunks.header) else _decode_chunk(spec, data)
            except FrameError as error:
                raise self._damaged(spec, row, error) from error
            found[name] = np.ndarray(chunks.row_shape, chunks.dtype, bytearray(decoded))
        return found

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        info = self._info
        with in_memory(info, self.where):
            out = np.empty((info.num_rows, *spec.row_shape), spec.numpy_dtype)
        for shard in range(info.num_shards):  # a shard at a time, holes too: rows that no file holds must cost no memory
            rows = info.shard_rows(shard)
            out[rows.start : rows.stop] = self.index_rows(spec, shard)
            out[rows.stop : (shard + 1) * info.shard_size] = spec.fill
        return out

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        return self._chunk(spec, shard)[: len(self._info.shard_rows(shard))]

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return f"{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"

    def _read_frames(self, chunked: Sequence[_Chunks], rows: NDArray[np.int64]) -> list[list[bytes]]:
        """Read rows' frames, for each array in the order of the rows; from the disk in the order in which they lie there."""
        order = np.argsort(rows)
        ordered = rows[order]
        shards = (ordered // self._info.shard_size).tolist()
        opened = self._files.of_each(dict.fromkeys(shards))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        places = back.tolist()
        found = []
        for chunks in chunked:
            fds = {shard: files[chunks.place].fd for shard, files in opened.items()}
            places_of = chunks.lengths[ordered].tolist(), chunks.offsets[ordered].tolist()
            read = list(map(os.pread, map(fds.__getitem__, shards), *places_of))
            found.append(list(map(read.__getitem__, places)))
        return found

    def _decode(self, spec: ArraySpec, rows: NDArray[np.int64], frames: Sequence[bytes], out: memoryview) -> NDArray[Any]:
        """Decode frames, into ``out`` where they are compressed."""
        try:
            if not spec.compressed:
                return check_plains(frames, spec.row_bytes).view(spec.numpy_dtype).reshape(len(rows), *spec.row_shape)
            decode_frames(frames, spec.row_bytes, out)
        except FrameError:
            for row, frame in zip(rows.tolist(), frames, strict=True):
                try:
                    _decode_chunk(spec, frame)
                except FrameError as error:
                    raise self._damaged(spec, row, error) from error
            raise
        return np.frombuffer(out, spec.numpy_dtype).reshape(len(rows), *spec.row_shape)

    def _damaged(self, spec: ArraySpec, row: int, error: Exception) -> DamagedRowError:
        path = self._path(spec, row // self._info.shard_size)
        chunks = self._chunks[spec.name]
        offset, length = chunks.offsets.item(row), chunks.lengths.item(row)
        if not length:
            return DamagedRowError(row, f"{path}: no chunk for the row")
        return DamagedRowError(row, f"{path}: the chunk at offset {offset} ({length} bytes) is damaged: {error}")

    def _load(self, shard: int) -> bool:
        """Read what a commit seals, check it, and enter it into the table; return whether there is a commit."""
        spec = commits_spec(len(self._committed))
        commit = read_chunk(self._path(spec, shard), spec, 1)
        if commit is None or not commit.any():
            self._table.mark_holes(shard)
            return False
        seals = commit[0, :, :3].tolist()
        opened, values = [], {}
        for spec, seal in zip(self._committed, seals, strict=True):
            file = self._open_sealed(spec, shard, seal)
            if spec.by_row:
                opened.append(file)
            elif spec.resident:
                values[spec.name] = _resident(spec, file, self._info.shard_size)
        indexes = {
            spec.name: read_index(file, self._info.shard_size, largest_chunk(spec))
            for spec, file in zip(self._by_row, opened, strict=True)
        }
        with self._files.lock():
            if not self._table.loaded[shard]:  # the first of several threads counts: its files belong to its index
                self._seals[shard] = [seal for spec, seal in zip(self._committed, seals, strict=True) if spec.by_row]
                self._files.keep(shard, tuple(opened))
                self._table.fill(shard, commit, indexes, values)
        return True

    def _reopen(self, shard: int) -> Files:
        """Open a shard's files again: those whose index is in the table, or none."""
        return tuple(self._open_sealed(spec, shard, seal) for spec, seal in zip(self._by_row, self._seals[shard], strict=True))

    def _open_sealed(self, spec: ArraySpec, shard: int, seal: list[int]) -> DataFile:
        path = self._path(spec, shard)
        try:
            file = DataFile(path)
        except FileNotFoundError:
            raise DamagedError(f"{path}: missing, though shard {shard} is committed") from None
        found = file.seal()
        if found != seal:
            raise DamagedError(f"{path}: not the file that was committed: {wrong_seal(seal, found)}")
        return file

    def _from_disk(self, spec: ArraySpec, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of an array that does not stay in memory (``errors``), a shard at a time."""
        out = np.empty((len(rows), *spec.row_shape), spec.numpy_dtype)
        shards, locals_ = np.divmod(rows, self._info.shard_size)
        for shard in np.unique(shards).tolist():
            here = shards == shard
            out[here] = self._chunk(spec, shard)[locals_[here]]
        return out

    def _chunk(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """Return all rows of a file that is one chunk, those of holes too."""
        path = self._path(spec, shard)
        chunk = read_chunk(path, spec, self._info.shard_size)
        if chunk is None:
            raise DamagedError(f"{path}: missing")
        return chunk

    def _path(self, spec: ArraySpec, shard: int) -> str:
        return f"{self.where}/{self.file_key(spec, shard)}"


def _resident(spec: ArraySpec, file: DataFile, rows: int) -> NDArray[Any]:
    values = decode_chunk(file.whole(largest_file(spec, rows)), spec, rows, file.path)
    if spec.name == STATUS:
        check_status(values, file.path)
    return values


def _decode_chunk(spec: ArraySpec, data: bytes) -> bytes:
    return decode_frame(data, spec.row_bytes) if spec.compressed else check_plain(data, spec.row_bytes)
