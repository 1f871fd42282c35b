"""Arrays that are written over and over: fresh memory of this size costs more to map than to fill."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of this thread's own, its content undefined: whatever was last written under this name."""
    kept: dict[str, NDArray[Any]] = _local.__dict__
    size = math.prod(shape)
    flat = kept.get(name)
    if flat is None or len(flat) < size or flat.dtype != dtype:
        flat = kept[name] = np.empty(size, dtype)
    return flat[:size].reshape(shape)


class Spares:
    """Bytes to write over, lent to one user at a time and kept for the next. Threads may share one."""

    def __init__(self) -> None:
        self._kept: list[bytearray] = []

    @contextmanager
    def lend(self, size: int) -> Iterator[memoryview]:
        """Lend ``size`` bytes, their content undefined, for the length of a ``with``."""
        try:
            spare = self._kept.pop()  # atomic, as append is
        except IndexError:
            spare = bytearray()
        if len(spare) < size:
            spare = bytearray(size)
        try:
            yield memoryview(spare)[:size]
        finally:
            self._kept.append(spare)
