"""The label map: what an annotator said of every location of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One label map, or a batch of them with a leading axis.

    Parameters
    ----------
    classes
        uint16 ``[K, H, W]`` or ``[B, K, H, W]``: the K best classes of every location; 65535 means 'no class'.
    scores
        float32, the same shape: their logits, non-increasing along K, relative to the classes that are not listed,
        which count as 0.
    """

    classes: NDArray[np.uint16]
    scores: NDArray[np.float32]
