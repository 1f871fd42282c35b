"""Files of plain arrays with a map a row: NumPy's ``.npz``, or a Zarr group. Read some rows at a time."""

from __future__ import annotations

import functools
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.errors import MapsError
from labelstore.schema import ATTRIBUTE

_LOCAL = struct.Struct("<26x2H")
_STORED = 0


class Column(Protocol):
    """An array of such a file, ``[N, ...]``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's."""
        ...

    def __getitem__(self, rows: slice) -> NDArray[Any]: ...


@dataclass(frozen=True)
class _StoredColumn:
    """An array that lies in a file as it is: rows are read where they lie."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        with Path(self.path).open("rb") as file:
            file.seek(self.offset + start * row * self.dtype.itemsize)
            found = np.fromfile(file, self.dtype, (stop - start) * row)
        if len(found) < (stop - start) * row:
            raise MapsError(f"{self.path}: cut off: expected {self.shape[0]} rows, found no row {stop - 1}")
        return found.reshape(stop - start, *self.shape[1:])


def open_arrays(path: str) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
    """Open a file of arrays; return them by name, and what it says of them as a store's attributes would (or nothing).

    Raises
    ------
    MapsError
        It cannot be read, or holds what are no plain arrays.
    """
    try:
        return _open_npz(path) if path.endswith(".npz") else _open_zarr(path)
    except MapsError:
        raise
    except OSError as error:
        raise MapsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise MapsError(f"{path}: expected arrays (.npz, or a Zarr group), found what cannot be read: {error}") from error


def _open_npz(path: str) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
    columns: dict[str, Column] = {}
    with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                columns[entry.filename.removesuffix(".npy")] = _npz_column(path, archive, entry, file)
    said = columns.pop(ATTRIBUTE, None)
    return columns, {} if said is None else json.loads(str(np.asarray(said)))


def _npz_column(path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: IO[bytes]) -> Column:
    with archive.open(entry) as member:
        shape, fortran, dtype = _header(member)
        length = member.tell()
    if dtype.hasobject:
        raise MapsError(f"{path}: {entry.filename}: expected plain numbers or texts, found objects, which are not unpickled")
    if entry.file_size != length + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise MapsError(f"{path}: {entry.filename}: expected {dtype} {list(shape)}, found {entry.file_size - length} bytes")
    if entry.compress_type != _STORED or fortran or not shape:
        with archive.open(entry) as member:
            found: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return found
    file.seek(entry.header_offset)
    name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    return _StoredColumn(path, entry.header_offset + _LOCAL.size + name + extra + length, shape, dtype)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


def _open_zarr(path: str) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
    group = zarr.open_group(path, mode="r")
    columns: dict[str, Column] = {name: _ZarrColumn(array) for name, array in group.arrays()}
    said: Any = group.attrs.asdict().get(ATTRIBUTE, {})
    return columns, said


class _ZarrColumn:
    """An array of a Zarr group."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return np.asarray(self._array[rows])


@functools.lru_cache(maxsize=4)
def opened_arrays(path: str) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
    """`open_arrays`, once a process."""
    return open_arrays(path)


def texts(column: Column) -> Iterator[str]:
    """Yield an array of texts: ``[N]`` of NumPy's own, or bytes uint8 ``[N, L]`` as a store keeps them."""
    values = column[0 : column.shape[0]]
    if values.dtype == np.uint8 and values.ndim == 2:
        values = np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0]
    for value in values.tolist():
        yield value.decode() if isinstance(value, bytes) else str(value)
