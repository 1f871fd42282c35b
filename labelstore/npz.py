"""NumPy's ``.npz`` files of somebody else, read without unpickling anything, and some rows at a time where they lie."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.regular_file import open_regular

_LOCAL = struct.Struct("<26x2H")
_ENDING = ".npy"
_ALWAYS_FINE, _MOST_TIMES = 2**30, 32
"""Bytes that packed arrays may have together, and how many times as many as they take packed."""


class Column(Protocol):
    """An array that rows are read of, ``[N, ...]``."""

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
        with open_regular(self.path) as file:
            file.seek(self.offset + start * row * self.dtype.itemsize)
            found = np.fromfile(file, self.dtype, (stop - start) * row)
        if len(found) < (stop - start) * row:
            raise ValueError(f"cut off: expected {self.shape[0]} rows, found no row {stop - 1}")
        return found.reshape(stop - start, *self.shape[1:])


def open_npz(path: str | Path) -> Mapping[str, Column]:
    """Open an archive's arrays, by name: those that are stored are read a part at a time, those that are packed at once.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is no such archive, is damaged, holds what is no plain array, or claims far more than it has; says which, without
        the path.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(_ENDING)]
            _require_plausible(entries)
            return {entry.filename.removesuffix(_ENDING): _column(str(path), archive, entry, file) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"no archive of arrays (.npz), or damaged: {error}") from error


def _require_plausible(entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what would fill the memory out of a small file: packed arrays are unpacked at once."""
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    claimed, there = sum(entry.file_size for entry in packed), sum(entry.compress_size for entry in packed)
    if claimed > max(_ALWAYS_FINE, _MOST_TIMES * there):
        raise ValueError(
            f"expected packed arrays of at most {_MOST_TIMES} times their bytes, found {there:,} bytes that claim {claimed:,}; "
            "if that is meant, save them with np.savez, which packs nothing"
        )
    for entry in entries:
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise ValueError(f"{entry.filename}: expected {entry.file_size:,} bytes, found {entry.compress_size:,}")


def _column(path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: IO[bytes]) -> Column:
    with archive.open(entry) as member:
        shape, fortran, dtype = _header(member)
        length = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{entry.filename}: expected plain numbers or texts, found objects, which are not unpickled")
    if entry.file_size != length + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{entry.filename}: expected {dtype} {list(shape)}, found {entry.file_size - length} bytes")
    if entry.compress_type != zipfile.ZIP_STORED or fortran or not shape:
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
