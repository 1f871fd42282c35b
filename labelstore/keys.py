"""The keys that a caller hands in: ids or rows, a list or an array, sorted out once at the border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import KeysError, RowIndexError
from labelstore.ids import IdTable


def resolve_keys(keys: Any, num_rows: int, ids: Callable[[], IdTable]) -> NDArray[np.int64]:
    """Return the rows that keys name.

    Parameters
    ----------
    keys
        A list, tuple or one-dimensional array (also a torch tensor) of image ids (str) or of rows (int).
    ids
        Called only if there are ids among the keys: the table of ids is loaded late.

    Raises
    ------
    KeysError
        Neither ids nor rows, or both mixed.
    UnknownIdError, RowIndexError
    """
    if isinstance(keys, str | bytes) or not hasattr(keys, "__len__"):
        raise KeysError(f"keys: expected a list or array of image ids or rows, got {keys!r}; for one use reader[key]")
    if isinstance(keys, list | tuple) and keys and set(map(type, keys)) == {str}:  # as NumPy texts they would cost more
        return ids().rows(keys)
    given = np.asarray(keys)
    if given.ndim != 1:
        raise KeysError(f"keys: expected one dimension, got shape {given.shape}")
    if not given.size:
        return np.empty(0, np.int64)
    if given.dtype.kind in "iu":
        return _check_rows(given, num_rows)
    items = keys if isinstance(keys, list | tuple) else given.tolist()  # NumPy turns a mixed list into texts
    if all(isinstance(item, str) for item in items):
        return ids().rows(items)
    if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return _check_rows(np.array(items), num_rows)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise KeysError(f"keys: expected all image ids (str) or all rows (int), got {kinds}")


def _check_rows(given: NDArray[Any], num_rows: int) -> NDArray[np.int64]:
    if given.min() < 0 or given.max() >= num_rows:
        outside = (given < 0) | (given >= num_rows)
        raise RowIndexError(f"row {given[int(np.argmax(outside))]}: expected 0..{num_rows - 1}")
    return given.astype(np.int64)
