"""The fast path: a store on a local file system, read without Zarr."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.chunks import DataFile, ShardFile, read_chunk
from labelstore.storage.metadata import ArrayMeta, commits_spec

_OPEN_SHARDS = 128
"""Shards kept open; two files each, far from the usual limit of 1,024 open files."""


class LocalShard:
    """A committed shard of a local store. What it has opened stays readable if the files are replaced."""

    def __init__(self, files: Mapping[str, DataFile], smalls: Mapping[str, NDArray[Any]], shard_size: int) -> None:
        self._files = {name: ShardFile(file, shard_size) for name, file in files.items()}
        self._smalls = smalls
        self.status: NDArray[np.uint8] = smalls["status"]

    def rows(self, spec: ArraySpec, locals_: NDArray[np.int64]) -> NDArray[Any]:
        """See `labelstore.storage.base.Shard.rows`."""
        if not spec.by_row:
            picked: NDArray[Any] = self._smalls[spec.name][locals_]
            return picked
        out = np.empty((len(locals_), *spec.row_shape), spec.numpy_dtype)
        flat = out.reshape(len(locals_), -1).view(np.uint8)
        for place, chunk in enumerate(self._files[spec.name].chunks(locals_, flat.shape[1])):
            flat[place] = np.frombuffer(chunk, np.uint8)
        return out


class LocalSource:
    """A store below a folder.

    Threads may share one: opened shards are kept in a table under a lock, everything else is read by position. Forked
    and unpickled copies start with an empty table of their own.
    """

    direct = True

    def __init__(self, path: Path, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        self.where = str(path)
        self._path = path
        self._info = info
        self._arrays = dict(arrays)
        self._committed = files
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, LocalShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_lock", "_open", "_process")
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def open_shard(self, shard: int) -> LocalShard | None:
        """See `labelstore.storage.base.Source.open_shard`."""
        if self._process != os.getpid():  # forked: a lock that some other thread of the parent held is never released
            self._forget()
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
        opened = self._read_shard(shard)
        if opened is not None:
            with self._lock:
                self._open[shard] = opened
                while len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
        return opened

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        parts = [self.index_rows(spec, shard) for shard in range(self._info.num_shards)]
        return np.concatenate(parts) if parts else np.empty((0, *spec.row_shape), spec.numpy_dtype)

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        return self._small(spec, shard)[: len(self._info.shard_rows(shard))]

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return f"{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"

    def _read_shard(self, shard: int) -> LocalShard | None:
        spec = commits_spec(len(self._committed))
        commit = read_chunk(self._file(spec, shard), spec.numpy_dtype, (1, *spec.row_shape))
        if commit is None or not commit.any():
            return None
        files = {}
        for spec, record in zip(self._committed, commit[0].tolist(), strict=True):
            file = self._check_file(spec, shard, record)
            if spec.by_row:
                files[spec.name] = file
        smalls = {spec.name: self._small(spec, shard) for spec in self._committed if not spec.by_row}
        return LocalShard(files, smalls, self._info.shard_size)

    def _check_file(self, spec: ArraySpec, shard: int, record: list[int]) -> DataFile:
        path = self._file(spec, shard)
        try:
            file = DataFile(path)
        except FileNotFoundError:
            raise DamagedError(f"{path}: missing, though shard {shard} is committed") from None
        found = [file.length, file.tail()]
        if found != record[:2]:
            raise DamagedError(
                f"{path}: not the file that was committed: expected {record[0]} bytes ending in {record[1]:08x}, "
                f"found {found[0]} ending in {found[1]:08x}"
            )
        return file

    def _small(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        path = self._file(spec, shard)
        chunk = read_chunk(path, spec.numpy_dtype, (self._info.shard_size, *spec.row_shape))
        if chunk is None:
            raise DamagedError(f"{path}: missing")
        return chunk

    def _file(self, spec: ArraySpec, shard: int) -> Path:
        return self._path / self.file_key(spec, shard)
