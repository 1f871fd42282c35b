"""The paper's encoding: the K best classes of every location (Yun et al. 2021, section 3.1), 8 bits a score.

Scores are kept as *rank gaps*. With ``max`` and ``step`` of the row, the level of a score is
``L = rint((max - score) / step)``, 0 to 255; stored are ``q[0] = L[0]`` and ``q[k] = L[k] - L[k - 1]`` along K, which are
small and compress well. A score is off by at most half a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import box_weights
from labelstore.encodings.base import Arrays
from labelstore.labelmap import LabelMap
from labelstore.schema import NO_CLASS, ArraySpec, StoreInfo

LEVELS = 255
FLOAT32_MAX = float(np.finfo(np.float32).max)


class TopK:
    """``classes``, ``scores`` (rank gaps) and ``score_range``; see docs/format.md."""

    name = "topk"
    recipe = (
        "classes[n]: uint16 [K,H,W], best first, 65535 = no class. scores[n]: uint8 rank gaps q [K,H,W]. "
        "score_range[n]: float32 (max, step). Logit k of a location = max - step * cumsum(q along K)[k], in float32. "
        "Classes that are not listed have logit 0. "
        "Only rows with status 1 hold a map, and only while commits[n // shard_size] is not all zero."
    )

    def arrays(self, info: StoreInfo) -> tuple[ArraySpec, ...]:
        """Return ``classes``, ``scores`` and ``score_range``."""
        shape = (info.top_k, *info.map_size)
        return (
            ArraySpec("classes", "uint16", shape, NO_CLASS, by_row=True),
            ArraySpec("scores", "uint8", shape, 0, by_row=True),
            ArraySpec("score_range", "float32", (2,), 0.0),
        )

    def check(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Find classes out of range, locations without any class, levels above 255 and ranges that are not finite."""
        classes = arrays["classes"]
        if classes.size and classes.max() >= info.num_classes:
            outside = (classes >= info.num_classes) & (classes != NO_CLASS)
            if outside.any():
                row = _first(outside)
                worst = classes[row][outside[row]].max()
                return row, f"classes: expected 0..{info.num_classes - 1}, found {worst}"
            empty = classes[:, 0] == NO_CLASS
            if empty.any():
                return _first(empty), "classes: a location without a best class"
        too_far = _levels(arrays)[:, -1] > LEVELS
        if too_far.any():
            return _first(too_far), f"scores: expected rank gaps that add up to at most {LEVELS}, found more"
        spans = arrays["score_range"].astype(np.float64)
        lowest = spans[:, 0] - LEVELS * spans[:, 1]
        bad = ~(np.abs(spans).max(axis=1) <= FLOAT32_MAX) | ~(np.abs(lowest) <= FLOAT32_MAX) | (spans[:, 1] < 0)
        if bad.any():
            row = int(np.argmax(bad))
            return row, f"score_range: expected (max, step >= 0), finite down to the last level, found {spans[row].tolist()}"
        return None

    def decode(self, arrays: Arrays, info: StoreInfo) -> LabelMap:
        """Undo the rank gaps."""
        return LabelMap(classes=arrays["classes"], scores=_scores(arrays))

    def pool(self, arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo) -> NDArray[np.float32]:
        """Scatter-add each entry's score, weighted by RoIAlign; what is not listed adds 0."""
        classes = arrays["classes"]
        wy, wx = box_weights(boxes, info.map_size)
        weights = wy[:, None, :, None] * wx[:, None, None, :]
        values = _scores(arrays) * weights
        stride = info.num_classes + 1  # one column more collects the entries that hold no class
        column = np.minimum(classes, info.num_classes).astype(np.int64)
        column += (np.arange(len(classes)) * stride)[:, None, None, None]
        sums = np.bincount(column.ravel(), values.ravel(), len(classes) * stride)
        return sums.reshape(len(classes), stride)[:, : info.num_classes].astype(np.float32)


def _levels(arrays: Arrays) -> NDArray[np.uint32]:
    return np.cumsum(arrays["scores"], axis=1, dtype=np.uint32)


def _scores(arrays: Arrays) -> NDArray[np.float32]:
    top, step = (arrays["score_range"][:, i, None, None, None] for i in (0, 1))
    scores: NDArray[np.float32] = top - step * _levels(arrays).astype(np.float32)
    return scores


def _first(flags: NDArray[np.bool_]) -> int:
    """The first row of a batch with a flag set."""
    return int(np.argmax(flags.reshape(len(flags), -1).any(axis=1)))
