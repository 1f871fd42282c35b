"""The paper's encoding: the K best classes of every location (Yun et al. 2021, section 3.1), 8 bits a score.

Scores are kept as *rank gaps*. With ``max`` and ``step`` of the row, the level of a score is
``L = rint((max - score) / step)``, 0 to 255; stored are ``q[0] = L[0]`` and ``q[k] = L[k] - L[k - 1]`` along K, which are
small and compress well. A score is off by at most half a step.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import box_weights
from labelstore.encodings.base import Arrays, SoftLabels
from labelstore.labelmap import LabelMap
from labelstore.schema import NO_CLASS, ArraySpec, StoreInfo
from labelstore.scratch import scratch

LEVELS = 255
FLOAT32_MAX = float(np.finfo(np.float32).max)
_DIMS = ("row", "rank", "y", "x")


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
            ArraySpec("classes", "uint16", shape, NO_CLASS, by_row=True, dims=_DIMS),
            ArraySpec("scores", "uint8", shape, 0, by_row=True, dims=_DIMS),
            ArraySpec("score_range", "float32", (2,), 0.0, resident=True, dims=("row", "max_step")),
        )

    def check(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Find classes out of range, locations without any class, levels above 255 and ranges that are not finite."""
        classes, gaps = arrays["classes"], arrays["scores"]
        if classes.size and _largest(classes) >= info.num_classes:
            problem = _class_problem(classes, info.num_classes)
            if problem is not None:
                return problem
        if _overflow(gaps):
            true = np.cumsum(gaps, axis=-3, dtype=np.uint32) > LEVELS
            return _first(true), f"scores: expected rank gaps that add up to at most {LEVELS}, found more"
        ranges = arrays["score_range"]
        top, step = ranges.tolist() if ranges.ndim == 1 else ranges.T.astype(np.float64)
        most = FLOAT32_MAX / max(info.top_k, 4)  # differences of scores, and the sum of all of a location's, stay in float32
        good = (abs(top) <= most) & (LEVELS * step <= top + most) & (step >= 0)
        if good is not True and not np.all(good):
            row = int(np.argmin(good))
            found = np.atleast_2d(ranges)[row].tolist()
            return row, f"score_range: expected (max, step >= 0), finite down to the last level, found {found}"
        return None

    def check_closely(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Find classes that a location names twice, and classes behind 'no class'."""
        classes = arrays["classes"]
        ordered = np.sort(classes, axis=-3)
        twice = (ordered[..., 1:, :, :] == ordered[..., :-1, :, :]) & (ordered[..., 1:, :, :] != NO_CLASS)
        if twice.any():
            return _first(twice), "classes: expected each at most once a location, found one twice"
        behind = (classes[..., :-1, :, :] == NO_CLASS) & (classes[..., 1:, :, :] != NO_CLASS)
        return (_first(behind), "classes: a class behind 'no class'") if behind.any() else None

    def unpack(self, arrays: Arrays, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Return the arrays as they are."""
        return dict(arrays)

    def one_class(self, chosen: int, logit: float, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Name the class as the best of every location, and no other."""
        shape = (info.top_k, *info.map_size)
        classes = np.full(shape, NO_CLASS, np.uint16)
        classes[0] = chosen
        ranges = np.array([logit, 0.0], np.float32)
        return {"classes": classes, "scores": np.zeros(shape, np.uint8), "score_range": ranges}

    def decode(self, arrays: Arrays, info: StoreInfo) -> LabelMap:
        """Undo the rank gaps."""
        ranges = arrays["score_range"]
        top, step = ranges[..., 0, None, None, None], ranges[..., 1, None, None, None]
        scores = _levels(arrays["scores"]).astype(np.float32)
        scores *= step
        return LabelMap(arrays["classes"], np.subtract(top, scores, out=scores))

    def pool(self, arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo) -> NDArray[np.float32]:
        """Scatter-add each entry's score, weighted by RoIAlign; what is not listed adds 0."""
        classes, shape = arrays["classes"], arrays["classes"].shape
        top, step = (arrays["score_range"][:, i, None, None] for i in (0, 1))
        wy, wx = box_weights(boxes, info.map_size)
        weights = wy[:, :, None] * wx[:, None, :]
        values = scratch("values", shape, np.float64)
        np.multiply(_levels(arrays["scores"]), (weights * step)[:, None], out=values)
        np.subtract((weights * top)[:, None], values, out=values)
        count, stride = shape[0], info.num_classes
        if classes.size and _largest(classes) >= stride:  # one column more collects the entries that hold no class
            stride += 1
            classes = np.minimum(classes, info.num_classes)
        places = scratch("places", shape, np.intp)
        np.add(classes, (np.arange(count) * stride)[:, None, None, None], out=places)
        logits = scratch("logits", (count * stride,), np.float64)
        logits.fill(0)
        np.add.at(logits, places.ravel(), values.ravel())
        return logits.reshape(count, stride)[:, : info.num_classes].astype(np.float32)

    def compiled(self) -> SoftLabels | None:
        """Return `topk_compiled`'s."""
        if find_spec("numba") is None:
            return None
        from labelstore.encodings.topk_compiled import soft_labels  # numba takes a fifth of a second: only where it pools

        def pool(
            arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo, temperature: float, out: NDArray[np.float32]
        ) -> None:
            classes, gaps, ranges = (np.ascontiguousarray(arrays[name]) for name in ("classes", "scores", "score_range"))
            soft_labels(classes, gaps, ranges, boxes, info.num_classes, float(temperature), out)

        return pool


def _by_rank(array: NDArray[Any]) -> NDArray[Any]:
    """View a map, or a batch of them, with K as the first axis."""
    return array.reshape(len(array), -1) if array.ndim == 3 else array.swapaxes(0, 1)


def _levels(gaps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sum rank gaps up along K, in bytes: checked gaps never pass 255. Several times as fast as `numpy.cumsum`."""
    levels = gaps.copy()
    above, *below = _by_rank(levels)
    for rank in below:
        np.add(above, rank, rank)
        above = rank
    return levels


def _overflow(gaps: NDArray[np.uint8]) -> bool:
    """Whether a sum along K passes 255."""
    if gaps.ndim == 3:
        return _largest(np.add.reduce(gaps, 0, np.uint32)) > LEVELS
    levels, ranks = _by_rank(_levels(gaps)), _by_rank(gaps)
    return bool((levels < ranks).any())  # a sum of bytes that has passed 255 is smaller than what was added last


def _largest(array: NDArray[Any]) -> int:
    """The largest of whole numbers; a third of the time that `numpy.max` takes for a single map."""
    return int(array.item(array.argmax()))


def _class_problem(classes: NDArray[np.uint16], num_classes: int) -> tuple[int, str] | None:
    outside = (classes >= num_classes) & (classes != NO_CLASS)
    if outside.any():
        return _first(outside), f"classes: expected 0..{num_classes - 1}, found {classes[outside].max()}"
    empty = classes[..., :1, :, :] == NO_CLASS
    return (_first(empty), "classes: a location without a best class") if empty.any() else None


def _first(flags: NDArray[np.bool_]) -> int:
    """The first row of a batch ``[B, K, H, W]``, or of a single map ``[K, H, W]``, with a flag set."""
    flags = flags.reshape(-1, *flags.shape[-3:])
    return int(np.argmax(flags.any(axis=(1, 2, 3))))
