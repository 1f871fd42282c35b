"""The fast path: a store on a local file system, read without Zarr."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.chunks import DataFile, largest_chunk, read_chunk, read_index
from labelstore.storage.direct import Chunks, DirectSource, check_seal, decode_row, missing_file
from labelstore.storage.frames import FrameError, decode_usual
from labelstore.storage.metadata import ArrayMeta, commits_spec
from labelstore.storage.openfiles import Files, OpenFiles


class LocalSource(DirectSource):
    """A store below a folder.

    Everything is read by position. Forked processes share the table and the open files of their parent, unpickled copies
    start anew.
    """

    def __init__(self, path: Path, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        super().__init__(str(path), info, arrays, files)
        self._seals: dict[int, list[list[int]]] = {}
        self._files = OpenFiles(self._reopen, len(self._by_row))

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalSource, (Path(self.where), self._info, self._arrays, self._committed)

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        files = self._files.of(row // self._info.shard_size)
        found = {}
        for spec in specs:
            name = spec.name
            chunks = self._chunks.get(name)
            if chunks is None:
                found[name] = self._table.values[name][row] if spec.resident else self._from_files(spec, np.array([row]))[0]
                continue
            data = os.pread(files[chunks.place].fd, chunks.lengths.item(row), chunks.offsets.item(row))
            try:
                decoded = decode_usual(data) if data.startswith(chunks.header) else decode_row(spec, data)
            except FrameError as error:
                raise self._damaged(spec, row, error) from error
            found[name] = np.ndarray(chunks.row_shape, chunks.dtype, bytearray(decoded))
        return found

    def _read_frames(self, chunked: Sequence[Chunks], rows: NDArray[np.int64]) -> list[list[bytes]]:
        """See `DirectSource._read_frames`; from the disk in the order in which they lie there."""
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

    def _each_chunk(self, spec: ArraySpec, shards: Sequence[int]) -> Iterator[NDArray[Any]]:
        """See `DirectSource._each_chunk`."""
        for shard in shards:
            path = self._path(spec, shard)
            chunk = read_chunk(path, spec, self._info.shard_size)
            if chunk is None:
                raise DamagedError(f"{path}: missing")
            yield chunk

    def _load(self, shards: Sequence[int]) -> None:
        """See `DirectSource._load`."""
        for shard in shards:
            self._load_one(shard)

    def _load_one(self, shard: int) -> None:
        spec = commits_spec(len(self._committed))
        commit = read_chunk(self._path(spec, shard), spec, 1)
        if commit is None or not commit.any():
            self._table.mark_holes(shard)
            return
        seals = commit[0, :, :3].tolist()
        files = [self._open_sealed(spec, shard, seal) for spec, seal in zip(self._committed, seals, strict=True)]
        values, size = self._values(files), self._info.shard_size
        kept = [place for place, spec in enumerate(self._committed) if spec.by_row]
        indexes = {
            spec.name: read_index(files[place], size, largest_chunk(spec))
            for place, spec in zip(kept, self._by_row, strict=True)
        }
        with self._files.lock():
            if not self._table.loaded[shard]:  # the first of several threads counts: its files belong to its index
                self._seals[shard] = [seals[place] for place in kept]
                self._files.keep(shard, tuple(files[place] for place in kept))
                self._table.fill(shard, commit, indexes, values)

    def _reopen(self, shard: int) -> Files:
        """Open a shard's files again: those whose index is in the table, or none."""
        return tuple(self._open_sealed(spec, shard, seal) for spec, seal in zip(self._by_row, self._seals[shard], strict=True))

    def _open_sealed(self, spec: ArraySpec, shard: int, seal: list[int]) -> DataFile:
        path = self._path(spec, shard)
        try:
            file = DataFile(path)
        except FileNotFoundError:
            raise missing_file(path, shard) from None
        check_seal(file, seal)
        return file
