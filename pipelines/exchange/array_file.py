"""Files of plain arrays with a map a row: NumPy's ``.npz``, or a Zarr group. Read some rows at a time."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.errors import MapsError
from labelstore.npz import Column, open_npz
from labelstore.schema import ATTRIBUTE

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
    group = zarr.open_group(path, mode="r")
    said: Any = group.attrs.asdict().get(ATTRIBUTE, {})
    return {name: _ZarrColumn(array) for name, array in group.arrays()}, said


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
