"""What the compiled ways of the encodings share: how to compile, types of arguments, RoIAlign's weights.

Needs the extra ``[fast]``. Compiled code is kept beside the modules, or in numba's own folder, for the next process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def given(dtype: Any, dimensions: int, layout: Any = "C") -> Any:
    """Return the type of an argument that is only read: arrays over somebody's bytes may forbid writing."""
    return numba.types.Array(dtype, dimensions, layout, readonly=True)


def compiled(*signature: Any, inline: str = "never") -> Callable[[F], F]:
    """Compile a function for one signature, or each that it is called with, without the interpreter's lock."""

    def compile_it(function: F) -> F:
        njit: Any = partial(numba.njit, *signature, nogil=True, error_model="numpy", inline=inline)
        try:
            made: F = njit(cache=True)(function)
        except RuntimeError:  # nowhere to keep what is compiled
            made = njit()(function)
        return made

    return compile_it


@compiled(inline="always")
def axis_weights(low: float, high: float, weights: NDArray[np.float64]) -> tuple[int, int]:
    """Write RoIAlign's weights of one axis (`labelstore.boxes`); return the first that is not 0, and one past the last."""
    size = len(weights)
    start = low * size - 0.5
    extent = max((high * size - 0.5) - start, 1.0)
    samples = ceil(extent)
    weights[:] = 0.0
    first, last = size, 0
    for sample in range(samples):
        at = min(max(start + (sample + 0.5) * extent / samples, 0.0), size - 1.0)
        cell = min(int(at), max(size - 2, 0))
        upper = (at - cell) / samples
        weights[cell] += 1.0 / samples - upper
        if size > 1:
            weights[cell + 1] += upper
        first, last = min(first, cell), max(last, min(cell + 2, size))
    return first, last
