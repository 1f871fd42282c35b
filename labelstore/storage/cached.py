"""A store's maps, decoded once into a file that all processes of a machine share: gathered from there afterwards.

The file is a row of records of equal size, one a row of the store: row number and seal of the row's shard, the decoded arrays,
crc32c of all that. A record counts only if its checksum holds and it is of this row as now committed; whatever else lies in its
place (nothing yet, half a record of a writer that was killed, another store's) is read from the store and written again. So
processes and runs share a file without locks: those that write a record at the same time write the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.errors import CacheError, OptionError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.base import Source, UsePart
from labelstore.storage.budget import close_quietly
from labelstore.storage.plain import CHECKSUM_BYTES, CRC32C_RESIDUE
from labelstore.storage.private import open_private, private_folder

_HEAD = np.dtype([("row", "<i8"), ("seal", "<u4")])


class CachedSource:
    """A source in front of which a file keeps decoded rows. As safe to share as the source behind it.

    Parameters
    ----------
    source
        The store.
    specs
        The arrays of a record: those that keep the maps.
    folder
        Where the file goes, see `private_folder`. Best in memory (``/dev/shm``) or on a local disk.
    most_bytes
        What the file may grow to: the first rows that fit are kept. By default all, or what is free on the disk.

    Raises
    ------
    CacheError, OptionError
        The folder, or the bound, cannot be used.
    """

    def __init__(
        self, source: Source, info: StoreInfo, specs: Sequence[ArraySpec], folder: str | Path, most_bytes: int | None = None
    ) -> None:
        check_bound("cache_bytes", most_bytes)
        self.where, self.direct = source.where, source.direct
        self._source, self._info, self._specs = source, info, tuple(specs)
        self._given, self._most_bytes = folder, most_bytes
        self._folder = private_folder("cache", folder)
        self._size = _HEAD.itemsize + sum(spec.row_bytes for spec in specs) + CHECKSUM_BYTES
        self._file = self._folder / f"labelstore-{_identity(info, specs)}.v1.cache"
        self._fd, self._writable = open_private("cache", self._file)
        self.capacity = min(info.num_rows, self._room() // self._size)
        """Rows that the file may hold: the store's first."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self._source, self._info, self._specs, self._given, self._most_bytes)

    def __del__(self, close: Callable[[int], None] = close_quietly) -> None:
        if hasattr(self, "_fd"):
            close(self._fd)

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """See `labelstore.storage.base.Source.each_part`; one part of what the file holds."""
        if tuple(specs) != self._specs:
            self._source.each_part(specs, rows, threads, use)
            return
        seals = self._source.seals(rows // self._info.shard_size)  # read first: what is read later is not older
        found, absent = self._gather(rows, seals)
        missing = np.flatnonzero(absent)
        if len(missing):

            def fill(part: slice, fresh: dict[str, NDArray[Any]]) -> None:
                for name, values in fresh.items():
                    found[name][missing[part]] = values
                self._keep(rows[missing[part]], seals[missing[part]], fresh)

            self._source.each_part(specs, rows[missing], threads, fill)
        use(slice(0, len(rows)), found)

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        found: dict[str, NDArray[Any]] = {}
        self.each_part(
            specs, np.array([row]), 1, lambda _, rows: found.update({name: part.copy() for name, part in rows.items()})
        )
        return {name: values[0] for name, values in found.items()}

    def is_committed(self, shard: int) -> bool:
        """See `labelstore.storage.base.Source.is_committed`."""
        return self._source.is_committed(shard)

    def renew(self, shards: Sequence[int]) -> bool:
        """See `labelstore.storage.base.Source.renew`."""
        return self._source.renew(shards)

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """See `labelstore.storage.base.Source.seals`."""
        return self._source.seals(shards)

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `labelstore.storage.base.Source.status`."""
        return self._source.status(rows)

    def row_status(self, row: int) -> int:
        """See `labelstore.storage.base.Source.row_status`."""
        return self._source.row_status(row)

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        return self._source.index_array(spec)

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        return self._source.index_rows(spec, shard)

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return self._source.file_key(spec, shard)

    def _gather(self, rows: NDArray[np.int64], seals: NDArray[np.uint32]) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        """Return what the file holds of rows, and which of them it does not hold."""
        offsets = (rows * self._size).tolist()
        try:
            records = list(map(os.pread, [self._fd] * len(rows), [self._size] * len(rows), offsets))
        except OSError as error:
            self._give_up("is not read", error)
            records = [b""] * len(rows)
        frames = [record if len(record) == self._size else bytes(self._size) for record in records]
        table = np.frombuffer(bytearray().join(frames), np.uint8).reshape(len(rows), self._size)
        good = np.fromiter(map(google_crc32c.value, frames), np.uint32, len(rows)) == CRC32C_RESIDUE
        heads = table[:, : _HEAD.itemsize].copy().view(_HEAD)[:, 0]
        good &= (heads["row"] == rows) & (heads["seal"] == seals)
        return self._unpack(table), ~good

    def _unpack(self, table: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        found, start = {}, _HEAD.itemsize
        for spec in self._specs:
            part = np.ascontiguousarray(table[:, start : start + spec.row_bytes])
            found[spec.name] = part.view(spec.numpy_dtype).reshape(len(table), *spec.row_shape)
            start += spec.row_bytes
        return found

    def _keep(self, rows: NDArray[np.int64], seals: NDArray[np.uint32], arrays: dict[str, NDArray[Any]]) -> None:
        """Write records of the rows that have a place in the file."""
        if not self._writable:
            return
        heads = np.zeros(len(rows), _HEAD)
        heads["row"], heads["seal"] = rows, seals
        parts = [heads.view(np.uint8), *(np.ascontiguousarray(arrays[spec.name]).view(np.uint8) for spec in self._specs)]
        table = np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)
        for row, record in zip(rows.tolist(), table, strict=True):
            if row < self.capacity:
                data = record.tobytes()
                self._write(data + google_crc32c.value(data).to_bytes(CHECKSUM_BYTES, "little"), row * self._size)

    def _write(self, data: bytes, offset: int) -> None:
        try:
            os.pwrite(self._fd, data, offset)
        except OSError as error:
            self._give_up("grows no more", error)

    def _give_up(self, state: str, error: OSError) -> None:
        """Write no more, and say so once: rows that the file does not hold are read from the store."""
        if self._writable:
            self._writable = False
            warnings.warn(f"{self._file}: the cache {state}: {error.strerror}", stacklevel=2)

    def _room(self) -> int:
        if self._most_bytes is not None:
            return self._most_bytes
        try:
            disk = os.statvfs(self._folder)
            return disk.f_bavail * disk.f_frsize + os.fstat(self._fd).st_blocks * 512
        except OSError as error:
            raise CacheError(f"cache: {self._folder}: cannot be looked at: {error.strerror}") from error


def check_bound(option: str, most_bytes: object) -> None:
    """Refuse what bounds nothing.

    Raises
    ------
    OptionError
    """
    if most_bytes is not None and (not isinstance(most_bytes, int) or isinstance(most_bytes, bool) or most_bytes < 0):
        raise OptionError(f"{option}: expected a number of bytes, got {most_bytes!r}")


def _identity(info: StoreInfo, specs: Sequence[ArraySpec]) -> str:
    """A name for the store's cache. Records are held against their shard's seal besides: this one need not be perfect."""
    said = [info.num_rows, info.shard_size, info.created, info.annotator.weights_sha256, info.store_id, *map(repr, specs)]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
