"""The store's classes of wanted columns: one each, or several whose probabilities are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ClassMapError

NO_MORE = -1
"""Fills the rows of a table ``[D, G]`` whose columns have fewer than G classes."""


@dataclass(frozen=True, slots=True)
class ClassColumns:
    """Checked columns.

    Attributes
    ----------
    classes
        intp ``[L]``: the store's classes, column by column.
    starts
        intp ``[D]``: where each column's classes start; None where each has one.
    """

    classes: NDArray[np.intp]
    starts: NDArray[np.intp] | None

    def __len__(self) -> int:
        return len(self.classes if self.starts is None else self.starts)

    def gather(self, soft: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Add up the probabilities ``[B, L]`` of each column's classes, into ``[B, D]``."""
        starts = np.arange(len(self)) if self.starts is None else self.starts
        np.add.reduceat(soft, starts, axis=1, out=out)


def check_class_map(class_map: Any, num_classes: int) -> ClassColumns | None:
    """Return the store's classes of each wanted column, checked; None for all classes as they are.

    Parameters
    ----------
    class_map
        ``[D]``; or ``[D, G]``, or a sequence of numbers and sequences of numbers: several classes a column, -1 after the last.

    Raises
    ------
    ClassMapError
        Other shapes than these, or other values than whole numbers in 0..num_classes - 1.
    """
    if class_map is None:
        return None
    table = as_table(class_map)
    inside = (table >= 0) & (table < num_classes)
    if table.ndim == 1:
        if not inside.all():
            _refuse(table, ~inside, num_classes)
        return ClassColumns(table.astype(np.intp), None)
    filled = (table == NO_MORE) & (np.arange(table.shape[1]) > 0)
    late = np.zeros(table.shape, np.bool_)
    late[:, 1:] = inside[:, 1:] & filled[:, :-1]
    if not (inside | filled).all() or late.any():
        _refuse(table, ~(inside | filled) | late, num_classes)
    counts = inside.sum(axis=1)
    return ClassColumns(table[inside].astype(np.intp), (np.cumsum(counts) - counts).astype(np.intp))


def as_table(class_map: Any) -> NDArray[np.int64]:
    """Return whole numbers as ``[D]``, or as ``[D, G]`` where columns have several; as `check_class_map`, values unchecked."""
    if isinstance(class_map, Sequence) and not isinstance(class_map, str) and any(isinstance(x, Sequence) for x in class_map):
        rows = [list(x) if isinstance(x, Sequence) and not isinstance(x, str) else [x] for x in class_map]
        width = max(map(len, rows))
        class_map = [row + [NO_MORE] * (width - len(row)) for row in rows]
    table = np.asarray(class_map)
    if table.ndim not in (1, 2) or not table.size or table.dtype.kind not in "iu":
        raise ClassMapError(f"class_map: expected whole numbers [D] or [D, G], got {table.dtype} {list(table.shape)}")
    return table.astype(np.int64)


def _refuse(table: NDArray[np.int64], wrong: NDArray[np.bool_], num_classes: int) -> None:
    place = tuple(np.argwhere(wrong)[0].tolist())
    at = ", ".join(map(str, place))
    raise ClassMapError(f"class_map[{at}]: expected a class of the store, 0..{num_classes - 1}, got {table[place]}")
