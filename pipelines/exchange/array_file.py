"""Files of plain arrays with a map a row: NumPy's ``.npz``, or a Zarr group. Read some rows at a time."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore, LocalStore, StorePath

from labelstore.errors import MapsError
from labelstore.npz import Column, open_npz
from labelstore.pipelines.exchange.zarr_metadata import require_plain
from labelstore.pipelines.sources.bytesio import read_all
from labelstore.pipelines.sources.spec import is_url
from labelstore.schema import ATTRIBUTE

COLUMNS = ("logits", "classes", "scores", "ids", "targets", "image_crc32")
"""Arrays that an import uses, if they are there."""
_MOST_METADATA = 2**26
Opened = tuple[Mapping[str, Column], Mapping[str, Any]]
"""Arrays by name, and what the file says of them as a store's attributes would (or nothing)."""


def open_arrays(path: str) -> Opened:
    """Open a file of arrays.

    Raises
    ------
    MapsError
        It cannot be read, or holds what are no plain arrays.
    """
    try:
        return _open_npz(path) if path.endswith(".npz") else _open_zarr(path)
    except OSError as error:
        raise MapsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MapsError(f"{path}: expected arrays (.npz, or a Zarr group), found what cannot be read: {error}") from error


@functools.lru_cache(maxsize=4)
def opened_arrays(path: str) -> Opened:
    """`open_arrays`, once a process."""
    return open_arrays(path)


def _open_npz(path: str) -> Opened:
    columns = dict(open_npz(path))
    said = columns.pop(ATTRIBUTE, None)
    return columns, {} if said is None else json.loads(str(np.asarray(said)))


def _open_zarr(path: str) -> Opened:
    """Open the arrays that an import uses, and no others, by the metadata that were looked at: they are not read again."""
    store = FsspecStore.from_url(path, read_only=True) if is_url(path) else LocalStore(path, read_only=True)
    root = path.rstrip("/")
    group = _metadata(f"{root}/zarr.json")
    said = group.get("attributes") if group is not None else _metadata(f"{root}/.zattrs")
    if group is None and _metadata(f"{root}/.zgroup") is None:
        raise ValueError("neither zarr.json nor .zgroup is there")
    columns = {}
    for name in COLUMNS:
        file = f"{root}/{name}/{'.zarray' if group is None else 'zarr.json'}"
        meta = _metadata(file)
        if meta is not None:
            plain = require_plain(meta, file)
            columns[name] = _ZarrColumn(zarr.Array.from_dict(StorePath(store, name), dict(plain)))
    return columns, said.get(ATTRIBUTE, {}) if isinstance(said, Mapping) else {}


def _metadata(file: str) -> dict[str, Any] | None:
    """Return what a file of metadata says; None if it is not there."""
    try:
        found = json.loads(read_all(file, _MOST_METADATA))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise TypeError(f"{file}: expected an object, got {type(found).__name__}")
    return found


class _ZarrColumn:
    """An array of a Zarr group."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return np.asarray(self._array[rows])


def texts(column: Column) -> Iterator[str]:
    """Yield an array of texts: ``[N]`` of NumPy's own, or bytes uint8 ``[N, L]`` as a store keeps them."""
    values = column[0 : column.shape[0]]
    if values.dtype == np.uint8 and values.ndim == 2:
        values = np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0]
    for value in values.tolist():
        yield value.decode() if isinstance(value, bytes) else str(value)
