"""Arrays that are written over and over: fresh memory of this size costs more to map than to fill."""

from __future__ import annotations

import math
import threading
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
