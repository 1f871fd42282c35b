"""What an encoding is to the reader: stored arrays -> label map, stored arrays + boxes -> pooled logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.labelmap import LabelMap
from labelstore.schema import ArraySpec, StoreInfo

Arrays = Mapping[str, NDArray[Any]]
"""The rows of a batch by array name, each ``[B, *row_shape]``."""


SoftLabels = Callable[[Arrays, NDArray[np.float64], StoreInfo, float, NDArray[np.float32]], None]
"""Checked arrays, checked boxes, the store, a temperature, and float32 ``[B, C]`` to write the soft labels to."""


class Encoding(Protocol):
    """How maps are kept. An encoding holds no state: one instance serves all stores, threads and processes."""

    name: str
    recipe: str
    """How to decode it, in words; goes into the store's attributes."""

    def arrays(self, info: StoreInfo) -> tuple[ArraySpec, ...]:
        """Return the arrays that keep the maps."""
        ...

    def check(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Look for values that no writer makes; return the first bad entry's place in the batch, and what is wrong."""
        ...

    def check_closely(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Look in arrays that have passed `check` for what no writer makes though every reader can read it; else as `check`."""
        ...

    def unpack(self, arrays: Arrays, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Return what another device needs of checked arrays to pool them, each its own array with the batch axis first."""
        ...

    def one_class(self, chosen: int, logit: float, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Return what `unpack` would, without the batch axis, of a map that gives one class a logit everywhere."""
        ...

    def decode(self, arrays: Arrays, info: StoreInfo) -> LabelMap:
        """Return the label maps ``[B, K, H, W]`` of checked arrays."""
        ...

    def pool(self, arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo) -> NDArray[np.float32]:
        """Return the pooled logits ``[B, C]`` of checked arrays and checked boxes; absent classes are at 0."""
        ...

    def compiled(self) -> SoftLabels | None:
        """Return a compiled way to soft labels, which does what `pool` and a softmax do; None without the extra ``[fast]``."""
        ...
