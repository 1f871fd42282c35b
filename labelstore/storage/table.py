"""What a reader keeps in memory of the shards that it has opened: flat columns over all rows of the store."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, StoreTooLargeError
from labelstore.schema import ArraySpec, Status, StoreInfo
from labelstore.storage.chunks import largest_chunk

STATUS = "status"


class RowTable:
    """Columns of ``num_shards * shard_size`` rows, filled a shard at a time.

    A column costs memory only where shards have been filled in, and forked processes share it until they write. Whoever
    writes holds a lock of his own; reading rows of shards that are ``loaded`` needs none.

    Raises
    ------
    StoreTooLargeError
    """

    def __init__(self, info: StoreInfo, specs: Iterable[ArraySpec], where: str) -> None:
        self._info = info
        with in_memory(info, where):
            self._allocate(info, specs)
        self.status: NDArray[np.uint8] = self.values[STATUS]  # 0, which is pending, until it is filled in

    def _allocate(self, info: StoreInfo, specs: Iterable[ArraySpec]) -> None:
        rows = info.num_shards * info.shard_size
        self._size = info.shard_size
        self.loaded = np.zeros(info.num_shards, np.bool_)
        self.seals = np.zeros(info.num_shards, np.uint32)
        self.offsets: dict[str, NDArray[np.unsignedinteger[Any]]] = {}
        self.lengths: dict[str, NDArray[np.unsignedinteger[Any]]] = {}
        self.values: dict[str, NDArray[Any]] = {}
        for spec in specs:
            if spec.by_row:
                largest = largest_chunk(spec)
                self.offsets[spec.name] = _zeros((rows,), np.min_scalar_type(info.shard_size * largest))
                self.lengths[spec.name] = _zeros((rows,), np.min_scalar_type(largest))
            elif spec.resident:
                self.values[spec.name] = _zeros((rows, *spec.row_shape), spec.numpy_dtype)

    def mark_holes(self, shard: int) -> None:
        """Enter which rows of a shard without a commit are none: not of all at first, metadata alone must cost no memory."""
        self.status[self._info.shard_rows(shard).stop : (shard + 1) * self._size] = Status.HOLE

    def is_of(self, shard: int, commit: NDArray[np.uint64] | None) -> bool:
        """Whether a loaded shard was loaded by this commit."""
        return commit is not None and bool(self.loaded[shard]) and int(self.seals[shard]) == _seal(commit)

    def forget(self, shard: int) -> None:
        """Make the rows of a shard pending, until it is filled in again."""
        self.loaded[shard] = False
        self.status[shard * self._size : (shard + 1) * self._size] = Status.PENDING

    def fill(
        self,
        shard: int,
        commit: NDArray[np.uint64],
        indexes: Mapping[str, tuple[NDArray[np.uint64], NDArray[np.uint64]]],
        values: Mapping[str, NDArray[Any]],
    ) -> None:
        """Enter a committed shard: its commit, chunks' offsets and lengths, and small rows, by array."""
        self.fill_indexes(shard, indexes)
        rows = slice(shard * self._size, (shard + 1) * self._size)
        for name, column in values.items():
            self.values[name][rows] = column
        self.seals[shard] = _seal(commit)
        self.loaded[shard] = True

    def fill_indexes(self, shard: int, indexes: Mapping[str, tuple[NDArray[np.uint64], NDArray[np.uint64]]]) -> None:
        """Enter where a shard's chunks lie, by array."""
        rows = slice(shard * self._size, (shard + 1) * self._size)
        for name, (offsets, lengths) in indexes.items():
            self.offsets[name][rows], self.lengths[name][rows] = offsets, lengths


def check_status(values: NDArray[np.uint8], path: str) -> None:
    """Refuse what is no `Status`."""
    if int(values.max(initial=0)) > max(Status):
        raise DamagedError(f"{path}: damaged: expected status 0 to {max(Status)}, found {values.max()}")


@contextmanager
def in_memory(info: StoreInfo, where: str) -> Iterator[None]:
    """Say in words that there is no memory for what is kept of a store's rows."""
    try:
        yield
    except (MemoryError, OSError, OverflowError, ValueError) as error:
        raise StoreTooLargeError(
            f"{where}: no memory for a store of {info.num_rows:,} rows in shards of {info.shard_size:,}, with ids of up to "
            f"{info.id_bytes:,} bytes ({error})"
        ) from error


def _seal(commit: NDArray[np.uint64]) -> int:
    seal: int = google_crc32c.value(commit.tobytes())
    return seal


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that take memory page by page as they are written; NumPy's own take it 2 MB by 2 MB, and cost 0.1 s."""
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(
        mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype, math.prod(shape)
    ).reshape(shape)
