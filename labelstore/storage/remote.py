"""Any other store, read by zarr-python: URLs, and local stores with codecs that the fast path does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from labelstore.errors import DamagedError, FormatError, MissingExtraError, StoreNotFoundError
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.base import DamagedRowError
from labelstore.storage.metadata import ArrayMeta, commits_spec

_DECODE_ERRORS = (ValueError, RuntimeError, OSError, KeyError)


def open_group(location: str) -> zarr.Group:
    """Open a Zarr group for reading.

    Raises
    ------
    StoreNotFoundError, FormatError, MissingExtraError
    """
    try:
        return zarr.open_group(location, mode="r")
    except ImportError as error:
        raise MissingExtraError(f"{location}: reading URLs needs more: pip install 'labelstore[s3]' ({error})") from error
    except FileNotFoundError:
        raise StoreNotFoundError(f"{location}: no store here") from None
    except (ValueError, OSError) as error:
        raise FormatError(f"{location}: expected a Zarr v3 group, found none: {error}") from error


class ZarrShard:
    """A committed shard, its rows read on demand."""

    def __init__(self, group: zarr.Group, first_row: int, status: NDArray[np.uint8]) -> None:
        self._group = group
        self._first = first_row
        self.status = status

    def rows(self, spec: ArraySpec, locals_: NDArray[np.int64]) -> NDArray[Any]:
        """See `labelstore.storage.base.Shard.rows`."""
        array = _array(self._group, spec.name)
        try:
            return np.asarray(array.oindex[self._first + locals_])
        except _DECODE_ERRORS as error:
            return self._one_by_one(array, locals_, error)

    def _one_by_one(self, array: zarr.Array[Any], locals_: NDArray[np.int64], cause: Exception) -> NDArray[Any]:
        """Read rows singly, to tell which one is damaged."""
        parts = []
        for local in locals_.tolist():
            try:
                parts.append(np.asarray(array[self._first + local]))
            except _DECODE_ERRORS as error:
                place = f"{array.store_path}: row {self._first + local}"
                raise DamagedRowError(local, f"{place} is damaged: {error}") from error
        if not parts:
            raise DamagedError(f"{array.store_path}: damaged: {cause}") from cause
        return np.stack(parts)


class ZarrSource:
    """A store that zarr opens. The group is opened anew in every process that unpickles a copy."""

    def __init__(self, location: str, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        self.where = location
        self._info = info
        self._arrays = dict(arrays)
        self.direct = all(meta.direct for meta in arrays.values())
        self._committed = files
        self._group = open_group(location)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_group"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._group = open_group(self.where)

    def open_shard(self, shard: int) -> ZarrShard | None:
        """See `labelstore.storage.base.Source.open_shard`."""
        commits = commits_spec(len(self._committed))
        commit = self._read(commits, slice(shard, shard + 1))[0]
        if not commit.any():
            return None
        for spec, record in zip(self._committed, commit.tolist(), strict=True):
            self._check_file(spec, shard, record)
        rows = self._info.shard_rows(shard)
        status = next(spec for spec in self._committed if spec.name == "status")
        return ZarrShard(self._group, rows.start, self._read(status, slice(rows.start, rows.stop)))

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        return self._read(spec, slice(None))

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        rows = self._info.shard_rows(shard)
        return self._read(spec, slice(rows.start, rows.stop))

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return f"{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"

    def _read(self, spec: ArraySpec, rows: slice) -> NDArray[Any]:
        try:
            return np.asarray(_array(self._group, spec.name)[rows])
        except _DECODE_ERRORS as error:
            raise DamagedError(f"{self.where}/{spec.name}: rows {rows.start} to {rows.stop}: damaged: {error}") from error

    def _check_file(self, spec: ArraySpec, shard: int, record: list[int]) -> None:
        path = self._group.store_path / self.file_key(spec, shard)
        tail = sync(path.get(default_buffer_prototype(), byte_range=SuffixByteRequest(4)))
        if tail is None:
            raise DamagedError(f"{path}: missing, though shard {shard} is committed")
        found = [sync(path.store.getsize(path.path)), int.from_bytes(tail.to_bytes(), "little")]
        if found != record[:2]:
            raise DamagedError(
                f"{path}: not the file that was committed: expected {record[0]} bytes ending in {record[1]:08x}, "
                f"found {found[0]} ending in {found[1]:08x}"
            )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise FormatError(f"{group.store_path}/{name}: expected an array, found a group")
    return array
