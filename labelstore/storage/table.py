"""What a reader keeps in memory of the shards that it has opened: flat columns over all rows of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.schema import ArraySpec, Status, StoreInfo

_SMALL = 16
"""Bytes a row up to which an array's rows stay in memory: ``score_range``, ``status``; not ``errors``."""


class RowTable:
    """Columns of ``num_shards * shard_size`` rows, filled a shard at a time.

    A column costs memory only where shards have been filled in, and forked processes share it until they write. Whoever
    writes holds a lock of his own; reading rows of shards that are ``loaded`` needs none.
    """

    def __init__(self, info: StoreInfo, specs: Iterable[ArraySpec]) -> None:
        rows = info.num_shards * info.shard_size
        self._size = info.shard_size
        self.loaded = np.zeros(info.num_shards, np.bool_)
        self.seals = np.zeros(info.num_shards, np.uint32)
        self.offsets: dict[str, NDArray[np.int64]] = {}
        self.lengths: dict[str, NDArray[np.int32]] = {}
        self.values: dict[str, NDArray[Any]] = {}
        for spec in specs:
            if spec.by_row:
                self.offsets[spec.name] = np.zeros(rows, np.int64)
                self.lengths[spec.name] = np.zeros(rows, np.int32)
            elif stays(spec):
                self.values[spec.name] = np.zeros((rows, *spec.row_shape), spec.numpy_dtype)
        self.status: NDArray[np.uint8] = self.values["status"]
        self.status.fill(Status.PENDING)

    def fill(
        self,
        shard: int,
        commit: NDArray[np.uint64],
        indexes: Mapping[str, NDArray[np.int64]],
        values: Mapping[str, NDArray[Any]],
    ) -> None:
        """Enter a committed shard: its commit, chunks' (offset, length) ``[shard_size, 2]`` and small rows by array."""
        rows = slice(shard * self._size, (shard + 1) * self._size)
        for name, index in indexes.items():
            self.offsets[name][rows], self.lengths[name][rows] = index.T
        for name, column in values.items():
            self.values[name][rows] = column
        self.seals[shard] = google_crc32c.value(commit.tobytes())
        self.loaded[shard] = True


def stays(spec: ArraySpec) -> bool:
    """Whether an array's rows are small enough to stay in memory."""
    return not spec.by_row and spec.row_bytes <= _SMALL
