"""The label map: what an annotator said of every location of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.schema import NO_CLASS


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


def location_probabilities(classes: NDArray[np.uint16], scores: NDArray[Any], num_classes: int) -> NDArray[Any]:
    """Return the softmax probabilities of maps' listed classes, of the shape and dtype of ``scores``; 0 where none is listed.

    Parameters
    ----------
    classes, scores
        ``[..., K, H, W]``, of a `LabelMap`: the classes that are not listed take part with logit 0.
    num_classes
        Number of classes of the annotator, the listed ones included.
    """
    known = classes != NO_CLASS
    logits = np.where(known, scores, scores.dtype.type(-np.inf))
    top = logits.max(axis=-3, keepdims=True)
    absent = np.maximum(num_classes - known.sum(axis=-3, keepdims=True), 0).astype(scores.dtype)
    # The shift is the largest logit that takes part, so no term overflows and one of them is 1.
    shift = np.where(absent > 0, np.maximum(top, 0), top)
    terms = np.exp(logits - shift)
    found: NDArray[Any] = terms / (terms.sum(axis=-3, keepdims=True) + absent * np.exp(-np.maximum(shift, 0)))
    return found
