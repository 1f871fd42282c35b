"""A store behind a URL, read by whole shards that are fetched once into a folder here; what has no room there, by ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, StoreReadError
from labelstore.schema import ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage.base import ChangedError, DamagedRowError, Source, UsePart
from labelstore.storage.cached import check_bound
from labelstore.storage.chunks import largest_file
from labelstore.storage.private import private_folder
from labelstore.storage.ranges import RangeSource
from labelstore.storage.shard_folder import Shard, ShardFolder

_SHARDS_AT_ONCE = 4096
"""Whose commits are fetched together: 200 bytes each."""


class _TryAgain(Exception):
    """A file here was damaged, and will not be looked at again."""


class MirrorSource:
    """A store of whose shards the first touch fetches all files; from then on they are read as those of a local store.

    Safe to share between threads, processes that are forked, and those that unpickle a copy. Every process reads a shard's
    commit once: what has been made again since it was fetched is fetched again. A file here that has been damaged is not used
    any more: its shard is read by ranges, and fetched by the next process.

    Parameters
    ----------
    remote, info
        The store.
    folder
        Below which it has a folder of its own, see `private_folder`.
    most_bytes
        See `ShardFolder`.

    Raises
    ------
    CacheError, OptionError
    """

    direct = True

    def __init__(self, remote: RangeSource, info: StoreInfo, folder: str | Path, most_bytes: int | None = None) -> None:
        check_bound("cache_dir_bytes", most_bytes)
        self.where = remote.where
        self._remote, self._info, self._given = remote, info, (folder, most_bytes)
        root = private_folder("cache_dir", folder) / f"labelstore-{_identity(remote.where, info)}.v1.shards"
        self._folder = ShardFolder(root, remote.objects, info.num_shards, most_bytes)
        self._local = remote.copy_in(root)
        self._here, self._elsewhere = np.zeros((2, info.num_shards), np.bool_)

    def __reduce__(self) -> tuple[Any, ...]:
        return MirrorSource, (self._remote, self._info, *self._given)

    def is_committed(self, shard: int) -> bool:
        """See `labelstore.storage.base.Source.is_committed`."""
        self.status(np.array([shard * self._info.shard_size]))
        return self._source_of(shard).is_committed(shard)

    def renew(self, shards: Sequence[int]) -> bool:
        """See `labelstore.storage.base.Source.renew`; what was made again is fetched again."""
        here = [shard for shard in shards if self._here[shard]]
        there = [shard for shard in shards if not self._here[shard]]
        commits = zip(here, self._remote.fetch_commits(here), strict=True)
        changed = [shard for shard, commit in commits if not self._folder.has_commit(self._remote.commit_key(shard), commit)]
        self._here[changed] = False
        return bool(there and self._remote.renew(there)) or bool(changed)

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """See `labelstore.storage.base.Source.seals`."""
        return np.where(self._here[shards], self._local.seals(shards), self._remote.seals(shards))

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `labelstore.storage.base.Source.status`; fetches shards."""
        shards = rows // self._info.shard_size
        found = np.empty(len(rows), np.uint8)
        while True:
            if not self._here[shards].all():
                self._bring(np.unique(shards))
            try:
                for source, mine in self._shares(rows):
                    with self._careful(source, rows[mine]):
                        found[mine] = source.status(rows[mine])
            except (_TryAgain, ChangedError):
                continue
            gone = self._here[shards] & (found == Status.PENDING)  # the folder was emptied: what was here was committed
            if not gone.any():
                return found
            self._give_up(np.unique(shards[gone]))

    def row_status(self, row: int) -> int:
        """See `labelstore.storage.base.Source.row_status`."""
        return self._source_of(row // self._info.shard_size).row_status(row)

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """See `labelstore.storage.base.Source.each_part`; one part, where some rows are here and some are not."""
        while True:
            try:
                self._each_part(specs, rows, threads, use)
            except _TryAgain:
                continue
            return

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        while True:
            source = self._source_of(row // self._info.shard_size)
            try:
                with self._careful(source, np.array([row])):
                    return source.row(specs, row)
            except _TryAgain:
                continue

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        return self._index_source(spec, range(self._info.num_shards)).index_array(spec)

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        return self._index_source(spec, [shard]).index_rows(spec, shard)

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return self._remote.file_key(spec, shard)

    def _each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        shares = self._shares(rows)
        if len(shares) == 1:
            source = shares[0][0]
            with self._careful(source, rows):
                source.each_part(specs, rows, threads, use)
            return
        found = {spec.name: np.empty((len(rows), *spec.row_shape), spec.numpy_dtype) for spec in specs}
        for source, mine in shares:

            def keep(part: slice, arrays: dict[str, NDArray[Any]], mine: NDArray[np.int64] = mine) -> None:
                for name, values in arrays.items():
                    found[name][mine[part]] = values

            with self._careful(source, rows[mine]):
                source.each_part(specs, rows[mine], threads, keep)
        use(slice(0, len(rows)), found)

    def _shares(self, rows: NDArray[np.int64]) -> list[tuple[Source, NDArray[np.int64]]]:
        """Return who reads rows, with the places of his."""
        here = self._here[rows // self._info.shard_size]
        shares = (self._local, np.flatnonzero(here)), (self._remote, np.flatnonzero(~here))
        return [(source, mine) for source, mine in shares if len(mine)]

    def _source_of(self, shard: int) -> Source:
        return self._local if self._here[shard] else self._remote

    def _bring(self, shards: NDArray[np.int64]) -> None:
        """Fetch shards that are committed and not here yet."""
        unknown = shards[~(self._here[shards] | self._elsewhere[shards])].tolist()
        for start in range(0, len(unknown), _SHARDS_AT_ONCE):
            some = unknown[start : start + _SHARDS_AT_ONCE]
            wanted = {}
            self._read_ids(self._remote.unknown_ids(some))
            for shard, file in zip(some, self._remote.fetch_commits(some), strict=True):
                files = self._remote.sealed_files(shard, file)
                if file is not None and files:
                    wanted[shard] = Shard(self._remote.commit_key(shard), file, files)
            here = self._folder.bring(wanted)
            self._renew_here(here)
            self._elsewhere[[shard for shard in wanted if shard not in here]] = True
            self._here[list(here)] = True

    def _read_ids(self, shards: Sequence[int]) -> None:
        """Read shards' ids, which commits are held against; fetched once, as all files."""
        ids = index_arrays(self._info)[0]
        if shards and self._index_source(ids, shards) is self._local:
            self._local.ids_seals(shards)

    @contextmanager
    def _careful(self, source: Source, rows: NDArray[np.int64]) -> Iterator[None]:
        """Give up shards here whose files are found damaged or gone."""
        try:
            yield
        except (DamagedRowError, DamagedError, StoreReadError) as error:
            if source is self._remote:
                if self._here[rows // self._info.shard_size].any():  # another thread has had them fetched again
                    raise ChangedError from error
                raise
            damaged = np.array([error.row]) if isinstance(error, DamagedRowError) else rows
            shards = np.unique(damaged // self._info.shard_size)
            if self._renew_here(shards.tolist()):  # another process has fetched them again
                self._here[shards] = False
                raise ChangedError from error
            self._give_up(shards)
            raise _TryAgain from error

    def _renew_here(self, shards: Iterable[int]) -> bool:
        """Have those that have been read here looked at again; return whether any of them has changed."""
        known = [shard for shard in shards if self._local.is_loaded(shard)]
        try:
            return bool(known) and self._local.renew(known)
        except (DamagedError, StoreReadError):  # then they will not be read here either
            return False

    def _give_up(self, shards: NDArray[np.int64]) -> None:
        """Read shards from the server from now on."""
        self._folder.forget(map(self._remote.commit_key, shards.tolist()))
        self._elsewhere[shards] = True
        self._here[shards] = False
        self._remote.status(shards * self._info.shard_size)

    def _index_source(self, spec: ArraySpec, shards: Sequence[int]) -> Source:
        """Return who reads files that no commit covers: they are fetched first, and read once to see whether they are whole."""
        keys = [self._remote.file_key(spec, shard) for shard in shards]
        if not self._folder.bring_files(keys, largest_file(spec, self._info.shard_size)):
            return self._remote
        try:
            for shard in shards:
                self._local.index_rows(spec, shard)
        except (DamagedError, StoreReadError):
            self._folder.forget(keys)
            return self._remote
        return self._local


def _identity(where: str, info: StoreInfo) -> str:
    said = [where, info.num_rows, info.shard_size, info.ids_array, info.created, info.annotator.weights_sha256, info.store_id]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
