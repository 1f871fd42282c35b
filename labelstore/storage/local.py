"""The fast path: a store on a local file system, read without Zarr."""

from __future__ import annotations

import bisect
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, StoreReadError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.base import ChangedError
from labelstore.storage.chunks import DataFile, largest_chunk, read_chunk, read_index
from labelstore.storage.direct import Chunks, DirectSource, check_seal, decode_row, missing_file
from labelstore.storage.failures import again
from labelstore.storage.frames import FrameError, decode_usual
from labelstore.storage.metadata import ArrayMeta, commits_spec
from labelstore.storage.openfiles import Files, OpenFiles


class LocalSource(DirectSource):
    """A store below a folder.

    Everything is read by position. Forked processes share the table and the open files of their parent, unpickled copies
    start anew. Where an ``owner`` is given, files of shards that belong to others are damage.
    """

    def __init__(
        self,
        path: Path,
        info: StoreInfo,
        arrays: Mapping[str, ArrayMeta],
        files: tuple[ArraySpec, ...],
        owner: int | None = None,
    ) -> None:
        super().__init__(str(path), info, arrays, files)
        self._owner = owner
        self._sealed = SealedFiles(self.where, self._arrays, self._by_row, owner)
        self._files = OpenFiles(self._sealed.open, len(self._by_row))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalSource, (Path(self.where), self._info, self._arrays, self._committed, self._owner)

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        shard, changes = row // self._info.shard_size, self._changes
        if changes and not self._table.loaded[shard]:
            raise ChangedError
        files = self._files.of(shard)
        found = {}
        for spec in specs:
            name = spec.name
            chunks = self._chunks.get(name)
            if chunks is None:
                found[name] = self._table.values[name][row] if spec.resident else self._from_files(spec, np.array([row]))[0]
                continue
            place = chunks.lengths.item(row), chunks.offsets.item(row)
            try:
                data = os.pread(files[chunks.place].fd, *place)
            except OSError:
                data = self._read_carefully(chunks, shard, *place)
            try:
                decoded = decode_usual(data) if data.startswith(chunks.header) else decode_row(spec, data)
            except FrameError as error:
                raise self._damaged(spec, row, error) from error
            found[name] = np.ndarray(chunks.row_shape, chunks.dtype, bytearray(decoded))
        if self._changes != changes:
            raise ChangedError
        return found

    def _read_frames(self, chunked: Sequence[Chunks], rows: NDArray[np.int64]) -> list[list[bytes]]:
        """See `DirectSource._read_frames`; in the order of the disk, and in parts where shards are more than may be open."""
        order = np.argsort(rows)
        ordered = rows[order]
        shards = (ordered // self._info.shard_size).tolist()
        read: list[list[bytes]] = [[] for _ in chunked]
        start = 0
        while start < len(shards):
            opened = self._files.of_each(dict.fromkeys(shards[start:] if start else shards))
            stop = bisect.bisect_right(shards, next(reversed(opened)))
            for chunks, frames in zip(chunked, read, strict=True):
                frames += self._read_part(chunks, ordered[start:stop], shards[start:stop], opened)
            start = stop
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        places = back.tolist()
        return [list(map(frames.__getitem__, places)) for frames in read]

    def _read_part(
        self, chunks: Chunks, rows: NDArray[np.int64], shards: Sequence[int], opened: Mapping[int, Files]
    ) -> list[bytes]:
        fds = {shard: files[chunks.place].fd for shard, files in opened.items()}
        places = chunks.lengths[rows].tolist(), chunks.offsets[rows].tolist()
        try:
            return list(map(os.pread, map(fds.__getitem__, shards), *places))
        except OSError:
            return [self._read_carefully(chunks, *place) for place in zip(shards, *places, strict=True)]

    def _read_carefully(self, chunks: Chunks, shard: int, length: int, offset: int) -> bytes:
        """Read a frame where that has failed: a stale handle is let go, and the file opened again."""
        files = self._files.of(shard)
        try:
            return files[chunks.place].read(offset, length)
        except StoreReadError as error:
            if error.errno != errno.ESTALE:
                raise
        self._files.drop([shard])
        return self._files.of(shard)[chunks.place].read(offset, length)

    def _each_chunk(self, spec: ArraySpec, shards: Sequence[int]) -> Iterator[NDArray[Any]]:
        """See `DirectSource._each_chunk`."""
        for shard in shards:
            path = self._path(spec, shard)
            chunk = read_chunk(path, spec, self._info.shard_size, self._owner)
            if chunk is None:
                raise DamagedError(f"{path}: missing")
            yield chunk

    def _load_now(self, shards: Sequence[int]) -> None:
        """See `DirectSource._load_now`."""
        for shard in shards:
            self._load_one(shard)

    def _read_commits(self, shards: Sequence[int]) -> list[NDArray[np.uint64] | None]:
        """See `DirectSource._read_commits`."""
        return [self._read_commit(shard) for shard in shards]

    def _forget(self, shard: int) -> None:
        """See `DirectSource._forget`; the seals stay for threads that are about to open files, and find out afterwards."""
        self._files.drop([shard])

    def _read_commit(self, shard: int) -> NDArray[np.uint64] | None:
        spec = commits_spec(self._info)
        commit = read_chunk(self._path(spec, shard), spec, 1, self._owner)
        return commit if commit is not None and self._counts(shard, commit[0]) else None

    @again
    def _load_one(self, shard: int) -> None:
        commit = self._read_commit(shard)
        if commit is None:
            self._table.mark_holes(shard)
            return
        seals = commit[0, : len(self._committed), :3].tolist()
        kept: list[DataFile] = []
        values, indexes = {}, {}
        for spec, seal in zip(self._committed, seals, strict=True):
            file = self._sealed.open_one(spec, shard, seal)
            if spec.by_row:
                indexes[spec.name] = read_index(file, self._info.shard_size, largest_chunk(spec))
                kept.append(file)
            else:
                values.update(self._values(spec, file))
        with self._lock():
            if not self._table.loaded[shard]:  # the first of several threads counts: its files belong to its index
                self._sealed.seals[shard] = [seal for spec, seal in zip(self._committed, seals, strict=True) if spec.by_row]
                if self._changes:
                    self._files.drop([shard])  # as opened by the old seals
                self._files.keep(shard, tuple(kept))
                self._table.fill(shard, commit, indexes, values)


class SealedFiles:
    """The files of committed shards that have a chunk a row: opened again, they must be those whose index is known."""

    def __init__(self, where: str, arrays: Mapping[str, ArrayMeta], by_row: Sequence[ArraySpec], owner: int | None) -> None:
        self._where, self._arrays, self._by_row, self._owner = where, arrays, by_row, owner
        self.seals: dict[int, list[list[int]]] = {}
        """What their commits keep of them, by shard."""

    def open(self, shard: int) -> Files:
        """Open a shard's files: those that its commit was of, or none. Raises as `open_one` does."""
        seals = zip(self._by_row, self.seals[shard], strict=True)
        return tuple(self.open_one(spec, shard, seal) for spec, seal in seals)

    def open_one(self, spec: ArraySpec, shard: int, seal: list[int]) -> DataFile:
        """Open a file of a committed shard.

        Raises
        ------
        DamagedError, StoreReadError
        """
        path = f"{self._where}/{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"
        try:
            file = DataFile(path, self._owner)
        except FileNotFoundError:
            raise missing_file(path, shard) from None
        check_seal(file, seal)
        return file


class LocalCopy(LocalSource):
    """A folder that holds shards of another source's, which has held their commits against the ids when it fetched them.

    Parameters
    ----------
    known
        The seals of ids that the other source knows, shared with it.
    """

    far = True

    def __init__(
        self,
        path: Path,
        info: StoreInfo,
        arrays: Mapping[str, ArrayMeta],
        files: tuple[ArraySpec, ...],
        known: dict[int, int],
        owner: int,
    ) -> None:
        super().__init__(path, info, arrays, files, owner)
        self._ids_seals = known

    def _counts(self, shard: int, commit: NDArray[np.uint64]) -> bool:
        """See `DirectSource._counts`; the ids themselves need not be here."""
        return bool(commit.any())
