"""Any other store, read by zarr-python: URLs, and local stores with codecs that the fast path does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from labelstore.errors import DamagedError, FormatError, StoreNotFoundError, StoreReadError
from labelstore.schema import ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage.base import DamagedRowError, UsePart
from labelstore.storage.chunks import wrong_seal
from labelstore.storage.failures import unreadable
from labelstore.storage.metadata import ArrayMeta, commits_spec
from labelstore.storage.origin import ids_seal, origin_problem, split_commit
from labelstore.storage.patience import may_pass
from labelstore.storage.patient_store import access_refused, open_place
from labelstore.storage.table import STATUS, RowTable, check_status, in_memory

_DECODE_ERRORS = (ValueError, RuntimeError, OSError, LookupError, TypeError, ArithmeticError, MemoryError)
"""What zarr-python and its codecs raise where bytes are not what their metadata say."""
_BYTES_AT_ONCE = 1 << 26


def _open_group(location: str) -> zarr.Group:
    """Open a Zarr group for reading.

    Raises
    ------
    StoreNotFoundError, FormatError, StoreReadError, MissingExtraError
    """
    try:
        return zarr.open_group(open_place(location), mode="r")
    except PermissionError as error:
        raise access_refused(location, error) from error
    except FileNotFoundError:
        raise StoreNotFoundError(f"{location}: no store here") from None
    except OSError as error:
        raise unreadable(location, error) from error
    except (ValueError, TypeError, KeyError) as error:  # zarr hands on what JSON holds as keyword arguments
        raise FormatError(f"{location}: expected a Zarr v3 group, found none: {error}") from error


class ZarrSource:
    """A store that zarr opens. The group is opened anew in every process that unpickles a copy.

    What a chunk decodes to is bounded where the codecs are the format's; others' are left to zarr-python.
    """

    def __init__(self, location: str, info: StoreInfo, arrays: Mapping[str, ArrayMeta], files: tuple[ArraySpec, ...]) -> None:
        self.where = location
        self._info = info
        self._arrays = dict(arrays)
        self.direct = all(meta.direct for meta in arrays.values())
        self._committed = files
        self._status = next(spec for spec in files if spec.name == STATUS)
        self._table = RowTable(info, [self._status], location)
        self._group = _open_group(location)
        self._zarr = {name: _array(self._group, name) for name in arrays}

    def __reduce__(self) -> tuple[Any, ...]:
        return ZarrSource, (self.where, self._info, self._arrays, self._committed)

    def is_committed(self, shard: int) -> bool:
        """See `labelstore.storage.base.Source.is_committed`."""
        return bool(self._table.loaded[shard]) or self._load(shard)

    def renew(self, shards: Sequence[int]) -> bool:
        """See `labelstore.storage.base.Source.renew`."""
        changed = [shard for shard in shards if not self._table.is_of(shard, self._read_commit(shard))]
        for shard in changed:
            self._table.forget(shard)
        return bool(changed)

    def _read_commit(self, shard: int) -> NDArray[np.uint64] | None:
        commit = self._read(commits_spec(self._info), slice(shard, shard + 1))[0]
        files, origin = split_commit(commit, self._info)
        seal = self._ids_seal(shard) if origin else None
        return None if files is None or origin_problem(origin, self._info, seal) else commit

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """See `labelstore.storage.base.Source.seals`."""
        return self._table.seals[shards]

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `labelstore.storage.base.Source.status`."""
        for shard in np.unique(rows // self._info.shard_size).tolist():
            self.is_committed(shard)
        return self._table.status[rows]

    def row_status(self, row: int) -> int:
        """See `labelstore.storage.base.Source.row_status`."""
        return self._table.status.item(row)

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """See `labelstore.storage.base.Source.each_part`; one part, threads are Zarr's own."""
        use(slice(0, len(rows)), {spec.name: self._rows_of(spec, rows) for spec in specs})

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """See `labelstore.storage.base.Source.row`."""
        return {spec.name: self._rows_of(spec, np.array([row]))[0] for spec in specs}

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_array`."""
        info = self._info
        with in_memory(info, self.where):
            out = np.empty((info.num_rows, *spec.row_shape), spec.numpy_dtype)
        step = info.shard_size * max(_BYTES_AT_ONCE // (info.shard_size * spec.row_bytes), 1)
        for start in range(0, info.num_rows, step):  # zarr lists all chunks that it is asked for, be they there or not
            rows = slice(start, min(start + step, info.num_rows))
            out[rows] = self._read(spec, rows)
            if spec.name == info.ids_array:
                self._require_ids(out, rows)
        return out

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """See `labelstore.storage.base.Source.index_rows`."""
        rows = self._info.shard_rows(shard)
        return self._read(spec, slice(rows.start, rows.stop))

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """See `labelstore.storage.base.Source.file_key`."""
        return f"{spec.name}/{self._arrays[spec.name].file_name(spec, shard)}"

    def _require_ids(self, ids: NDArray[np.uint8], rows: slice) -> None:
        """Every image has an id; where there is none a file is missing, which zarr reads as zeros."""
        for shard in range(rows.start // self._info.shard_size, -(-rows.stop // self._info.shard_size)):
            own = self._info.shard_rows(shard)
            if not ids[own.start : own.stop, 0].all():
                raise DamagedError(f"{self.where}/{self._info.ids_array}: no ids in rows {own.start} to {own.stop - 1}")

    def _ids_seal(self, shard: int) -> int | None:
        """The seal of a shard's ids; None where they cannot be read."""
        try:
            ids = self.index_rows(index_arrays(self._info)[0], shard)
        except DamagedError:
            return None
        return ids_seal(ids) if ids[:, 0].all() else None

    def _rows_of(self, spec: ArraySpec, rows: NDArray[np.int64]) -> NDArray[Any]:
        array = self._zarr[spec.name]
        try:
            return np.asarray(array.oindex[rows])
        except _DECODE_ERRORS as cause:
            _require_answer(cause, str(array.store_path))
            for row in rows.tolist():  # singly, to tell which one is damaged
                try:
                    array[row]
                except _DECODE_ERRORS as error:
                    raise DamagedRowError(row, f"{array.store_path}: row {row} is damaged: {error}") from error
            raise DamagedError(f"{array.store_path}: damaged: {cause}") from cause

    def _load(self, shard: int) -> bool:
        """Check a shard's files against its commit and remember its rows' status; return whether there is a commit."""
        commit = self._read_commit(shard)
        if commit is None:
            self._table.mark_holes(shard)
            return False
        for spec, record in zip(self._committed, commit[: len(self._committed)].tolist(), strict=True):
            self._check_file(spec, shard, record)
        rows = self._info.shard_rows(shard)
        values = np.full(self._info.shard_size, Status.HOLE, np.uint8)
        values[: len(rows)] = self._read(self._status, slice(rows.start, rows.stop))
        check_status(values, f"{self.where}/{STATUS}")
        self._table.fill(shard, commit, {}, {"status": values})
        return True

    def _read(self, spec: ArraySpec, rows: slice) -> NDArray[Any]:
        try:
            return np.asarray(self._zarr[spec.name][rows])
        except _DECODE_ERRORS as error:
            _require_answer(error, f"{self.where}/{spec.name}")
            raise DamagedError(f"{self.where}/{spec.name}: rows {rows.start} to {rows.stop}: damaged: {error}") from error

    def _check_file(self, spec: ArraySpec, shard: int, record: list[int]) -> None:
        path = self._group.store_path / self.file_key(spec, shard)
        parts = RangeByteRequest(0, 4), SuffixByteRequest(4)
        try:
            head, tail = (sync(path.get(default_buffer_prototype(), byte_range=part)) for part in parts)
            size = sync(path.store.getsize(path.path))
        except FileNotFoundError:
            head = tail = None
        except OSError as error:
            raise unreadable(str(path), error) from error
        if head is None or tail is None:
            raise DamagedError(f"{path}: missing, though shard {shard} is committed")
        found = [size, *(int.from_bytes(part.to_bytes(), "little") for part in (head, tail))]
        if found != record[:3]:
            raise DamagedError(f"{path}: not the file that was committed: {wrong_seal(record[:3], found)}")


def _require_answer(error: Exception, where: str) -> None:
    """Tell a server that did not answer from one whose answer is damaged."""
    if isinstance(error, OSError) and error.errno:
        raise unreadable(where, error) from error
    if may_pass(error):
        raise StoreReadError(f"{where}: cannot be read: {error}") from error


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    try:
        array = group[name]
    except Exception as error:  # whatever zarr-python stumbles over in somebody's metadata
        raise FormatError(f"{group.store_path}/{name}: zarr-python cannot open this array: {str(error)[:200]}") from error
    if not isinstance(array, zarr.Array):
        raise FormatError(f"{group.store_path}/{name}: expected an array, found a group")
    return array
