"""A store behind a URL, laid out as this project writes it: the parts that a batch needs, fetched at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.base import ChangedError
from labelstore.storage.chunks import decode_chunk, index_bytes, largest_chunk, largest_file, largest_shard_file, read_index
from labelstore.storage.direct import Chunks, DirectSource, Index, check_seal, missing_file
from labelstore.storage.local import LocalCopy, LocalSource
from labelstore.storage.metadata import ArrayMeta, commits_spec
from labelstore.storage.objects import Objects, Part, SealedFile
from labelstore.storage.plain import CHECKSUM_BYTES

_GAP = 4096
"""Bytes between two chunks that are rather read than asked around."""
_BYTES_AT_ONCE = 1 << 26
"""Of files that are fetched whole."""
_SHARDS_AT_ONCE = 256
"""Their indexes take 64 kB an array."""


class RangeSource(DirectSource):
    """A store of whose shards the commits and the small files are read once, the indexes when a map is wanted, then the chunks.

    A batch out of shards that are known is one round of requests, of others four. A forked child makes its own connections
    and goes on with its parent's table; unpickled copies start anew.
    """

    far = True

    def __init__(self, location: str, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        super().__init__(location, info, arrays, files)
        self.objects = Objects(location)
        self._commit = commits_spec(info)
        self._seals: dict[tuple[str, int], list[int]] = {}
        self._indexed = np.zeros(info.num_shards, np.bool_)

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeSource, (self.where, self._info, self._arrays, self._committed)

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        found: dict[str, NDArray[Any]] = {}

        def keep(_: slice, rows: dict[str, NDArray[Any]]) -> None:
            found.update({name: part[0].copy() for name, part in rows.items()})

        self.each_part(specs, np.array([row]), 1, keep)
        return found

    def _read_frames(self, chunked: Sequence[Chunks], rows: NDArray[np.int64]) -> list[list[bytes]]:
        """See `DirectSource._read_frames`; neighbours in a file are one request."""
        self._index(np.unique(rows // self._info.shard_size))
        wanted: list[list[Part]] = []
        for chunks in chunked:
            spec = self._by_row[chunks.place]
            shards = (rows // self._info.shard_size).tolist()
            keys = {shard: self.file_key(spec, shard) for shard in set(shards)}
            starts, sizes = chunks.offsets[rows].tolist(), chunks.lengths[rows].tolist()
            places = zip(shards, starts, sizes, strict=True)
            wanted.append([Part(keys[shard], start, start + size) for shard, start, size in places])
        runs = _joined({part for parts in wanted for part in parts if part.stop > part.start})
        fetched = dict(zip(runs, self.objects.fetch(list(runs)), strict=True))
        frames = {
            part: (fetched[run] or b"")[part.start - run.start : part.stop - run.start]
            for run, parts in runs.items()
            for part in parts
        }
        return [[frames.get(part, b"") for part in parts] for parts in wanted]

    def _each_chunk(self, spec: ArraySpec, shards: Sequence[int]) -> Iterator[NDArray[Any]]:
        """See `DirectSource._each_chunk`."""
        most = largest_file(spec, self._info.shard_size)
        step = max(_BYTES_AT_ONCE // most, 1)
        for start in range(0, len(shards), step):
            keys = [self.file_key(spec, shard) for shard in shards[start : start + step]]
            for key, data in zip(keys, self.objects.fetch([Part(key, 0, most + 1) for key in keys]), strict=True):
                path = f"{self.where}/{key}"
                if data is None:
                    raise DamagedError(f"{path}: missing")
                yield decode_chunk(_bounded(data, most, path), spec, self._info.shard_size, path)

    def _load_now(self, shards: Sequence[int]) -> None:
        """See `DirectSource._load_now`: a round of requests for the commits, and one for all that they seal."""
        for start in range(0, len(shards), _SHARDS_AT_ONCE):
            self._load_some(shards[start : start + _SHARDS_AT_ONCE])

    def _load_some(self, shards: Sequence[int]) -> None:
        committed = {}
        for shard, commit in zip(shards, self._read_commits(shards), strict=True):
            if commit is None:
                self._table.mark_holes(shard)
            else:
                committed[shard] = commit
        parts = {shard: self._sealed_parts(shard, commit) for shard, commit in committed.items()}
        asked = list(dict.fromkeys(part for files in parts.values() for file in files for part in file))
        fetched = dict(zip(asked, self.objects.fetch(asked), strict=True))
        for shard, commit in committed.items():
            self._enter(shard, commit, parts[shard], fetched)

    def _read_commits(self, shards: Sequence[int]) -> list[NDArray[np.uint64] | None]:
        """See `DirectSource._read_commits`."""
        files = self.fetch_commits(shards)
        self.ids_seals(self.unknown_ids([shard for shard, file in zip(shards, files, strict=True) if file is not None]))
        return [self.decode_commit(shard, file) for shard, file in zip(shards, files, strict=True)]

    def _forget(self, shard: int) -> None:
        """See `DirectSource._forget`."""
        self._indexed[shard] = False

    def fetch_commits(self, shards: Sequence[int]) -> list[bytes | None]:
        """Return the files of shards' commits, read now; None where there is none."""
        most = largest_file(self._commit, 1)
        keys = [self.file_key(self._commit, shard) for shard in shards]
        return self.objects.fetch([Part(key, 0, most + 1) for key in keys])

    def decode_commit(self, shard: int, file: bytes | None) -> NDArray[np.uint64] | None:
        """Return the commit that such a file holds; None if the shard is not committed.

        Raises
        ------
        DamagedError
        """
        if file is None:
            return None
        path = self._path(self._commit, shard)
        commit = decode_chunk(_bounded(file, largest_file(self._commit, 1), path), self._commit, 1, path)[0]
        return commit if self._counts(shard, commit) else None

    def sealed_files(self, shard: int, file: bytes | None) -> tuple[SealedFile, ...]:
        """Return what such a file says of the shard's others; none if the shard is not committed. Raises as `decode_commit`."""
        commit = self.decode_commit(shard, file)
        if commit is None:
            return ()
        found, sealed = [], commit[: len(self._committed)]
        for spec, length, crc32c in zip(self._committed, sealed[:, 0].tolist(), sealed[:, 3].tolist(), strict=True):
            most = largest_shard_file(spec, self._info.shard_size) if spec.by_row else largest_file(spec, self._info.shard_size)
            if length > most:
                raise DamagedError(f"{self._path(spec, shard)}: expected at most {most:,} bytes, its commit says {length:,}")
            found.append(SealedFile(self.file_key(spec, shard), length, crc32c))
        return tuple(found)

    def commit_key(self, shard: int) -> str:
        """Return where a shard's commit lies below the store."""
        return self.file_key(self._commit, shard)

    def unknown_ids(self, shards: Sequence[int]) -> list[int]:
        """Return those of some shards whose ids commits will have to be held against, and which have not been read yet."""
        return [] if self._info.store_id is None else [shard for shard in shards if shard not in self._ids_seals]

    def copy_in(self, folder: Path) -> LocalSource:
        """Return what reads the same store where its files lie in a folder of this user's."""
        return LocalCopy(folder, self._info, self._arrays, self._committed, self._ids_seals, os.geteuid())

    def _sealed_parts(self, shard: int, commit: NDArray[np.uint64]) -> list[list[Part]]:
        """Of files with an index their first and last bytes, others whole; and whatever lies behind the length committed."""
        found = []
        size = self._info.shard_size
        for spec, length in zip(self._committed, commit[: len(self._committed), 0].tolist(), strict=True):
            key = self.file_key(spec, shard)
            if spec.by_row:
                found.append([Part(key, 0, CHECKSUM_BYTES), Part(key, max(length - CHECKSUM_BYTES, 0), length + 1)])
            else:
                found.append([Part(key, 0, min(length, largest_file(spec, size)) + 1)])
        return found

    def _enter(
        self, shard: int, commit: NDArray[np.uint64], parts: list[list[Part]], fetched: Mapping[Part, bytes | None]
    ) -> None:
        values = {}
        for spec, mine, seal in zip(self._committed, parts, commit[: len(parts), :3].tolist(), strict=True):
            path = f"{self.where}/{mine[0].key}"
            known = {part.start: fetched[part] for part in mine}
            if None in known.values():
                raise missing_file(path, shard)
            file = FetchedFile(path, {start: data for start, data in known.items() if data is not None})
            check_seal(file, seal)
            values.update(self._values(spec, file))
        with self._lock():
            if not self._table.loaded[shard]:
                seals = zip(self._committed, commit[: len(parts), :3].tolist(), strict=True)
                self._seals.update({(spec.name, shard): seal for spec, seal in seals if spec.by_row})
                self._table.fill(shard, commit, {}, values)

    def _index(self, shards: NDArray[np.int64]) -> None:
        """Read the indexes of loaded shards, where that has not been done."""
        changes = self._changes
        unknown = shards[~self._indexed[shards]].tolist()
        for start in range(0, len(unknown), _SHARDS_AT_ONCE):
            some = unknown[start : start + _SHARDS_AT_ONCE]
            parts = [self._index_part(spec, shard) for shard in some for spec in self._by_row]
            fetched = zip(parts, self.objects.fetch(parts), strict=True)
            for shard in some:
                indexes = {spec.name: self._decode_index(spec, shard, *next(fetched)) for spec in self._by_row}
                with self._lock():
                    if self._changes != changes:  # they may be of a file that does not count any more
                        raise ChangedError
                    self._table.fill_indexes(shard, indexes)
                    self._indexed[shard] = True

    def _index_part(self, spec: ArraySpec, shard: int) -> Part:
        length = self._seals[spec.name, shard][0]
        return Part(self.file_key(spec, shard), max(length - index_bytes(self._info.shard_size), 0), length)

    def _decode_index(self, spec: ArraySpec, shard: int, part: Part, data: bytes | None) -> Index:
        path = self._path(spec, shard)
        if data is None:
            raise missing_file(path, shard)
        file = FetchedFile(path, {part.start: data})
        if file.tail() != self._seals[spec.name, shard][2]:
            raise DamagedError(f"{path}: not the file that was committed: its index is another one")
        return read_index(file, self._info.shard_size, largest_chunk(spec))


class FetchedFile:
    """What has been fetched of an object: its head, its end, or all of it; see `labelstore.storage.chunks.Whole`."""

    def __init__(self, path: str, parts: Mapping[int, bytes]) -> None:
        self.path = path
        self._parts = dict(parts)
        last = max(self._parts)
        self.length = last + len(self._parts[last])

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that have been fetched."""
        start = max(start for start in self._parts if start <= offset)
        return self._parts[start][offset - start : offset - start + length]

    def whole(self, most: int) -> bytes:
        """Return all of it."""
        return _bounded(self._parts[0], most, self.path)

    def seal(self) -> list[int]:
        """Return its length, its first and its last four bytes."""
        return [self.length, int.from_bytes(self.read(0, CHECKSUM_BYTES), "little"), self.tail()]

    def tail(self) -> int:
        """Return its last four bytes."""
        return int.from_bytes(self._parts[max(self._parts)][-CHECKSUM_BYTES:], "little")


def _joined(parts: set[Part]) -> dict[Part, list[Part]]:
    """Return what to ask for, with the parts that lie in it."""
    found: list[tuple[Part, list[Part]]] = []
    for part in sorted(parts):
        if found and found[-1][0].key == part.key and part.start - found[-1][0].stop <= _GAP:
            run, mine = found[-1]
            found[-1] = run._replace(stop=max(run.stop, part.stop)), [*mine, part]
        else:
            found.append((part, [part]))
    return dict(found)


def _bounded(data: bytes, most: int, path: str) -> bytes:
    if len(data) > most:
        raise DamagedError(f"{path}: expected at most {most:,} bytes, found more")
    return data
