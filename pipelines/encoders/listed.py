"""Maps that list their classes already, as other programs make them: checked, put in order, and into arrays of `topk`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.pipelines.encoders.topk import quantise
from labelstore.schema import NO_CLASS, StoreInfo

LARGEST_SCORE = 1e37
"""Differences of larger ones leave float32, in which scores are decoded."""
_PAIRS_UP_TO = 16
"""Ranks that are compared each with each other; more are sorted."""
_ULPS = 300
"""How far a score may be from what it is decoded to where it has been decoded before: the rounding of 255 steps."""


def find_problems(classes: NDArray[Any], scores: NDArray[np.floating[Any]], num_classes: int) -> list[str]:
    """Say of each map what is wrong with it; '' where nothing is.

    Parameters
    ----------
    classes
        ``[n, K, H, W]``, whole numbers in any dtype; those of integers may be 65535, no class, behind all others.
    scores
        ``[n, K, H, W]``.
    """
    flat, values = classes.reshape(*classes.shape[:2], -1), scores.reshape(*scores.shape[:2], -1)
    with np.errstate(invalid="ignore"):
        largest = np.maximum(values.max(axis=(1, 2)), -values.min(axis=(1, 2)))
        good = largest.astype(np.float64) <= LARGEST_SCORE  # not for NaN; float16 ends before it
        good &= (flat.min(axis=(1, 2)) >= 0) & (flat.max(axis=(1, 2)) < num_classes)
    whole = np.where(good[:, None, None], flat, 0).astype(np.uint16)
    if flat.dtype.kind == "f":
        good &= (whole == flat).all(axis=(1, 2))
    good &= ~_repeats(whole).any(axis=1)
    return ["" if fine else _problem(flat[at], values[at], num_classes, classes.shape[3]) for at, fine in enumerate(good)]


def encode_listed(classes: NDArray[Any], scores: NDArray[np.floating[Any]], info: StoreInfo) -> dict[str, NDArray[Any]]:
    """Return the arrays of encoding ``topk`` of maps without `find_problems`, in any order along K.

    Scores that were read out of a store of this encoding become what they were, to the bit (`_keep_decoded`).
    """
    listed, values = in_order(classes.astype(np.uint16), scores.astype(np.float32) + np.float32(0))  # no -0.0
    gaps, ranges = (part.numpy() for part in quantise(torch.from_numpy(values.astype(np.float64))))
    _keep_decoded(values, gaps, ranges)
    return {"classes": listed, "scores": gaps, "score_range": ranges}


def in_order(classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Put the classes of every location in order: best first, no class last with the last one's score.

    Ties stay in the order in which they come: what two scores of a store's map have become one level of must come out of an
    export, and in again, as it was.
    """
    if (classes == NO_CLASS).any():
        return _sorted(classes, scores)
    wrong = np.flatnonzero((scores[:, :-1] < scores[:, 1:]).any(axis=(1, 2, 3)))
    if len(wrong):
        classes, scores = classes.copy(), scores.copy()
        classes[wrong], scores[wrong] = _sorted(classes[wrong], scores[wrong])
    return classes, scores


def _sorted(classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    none = classes == NO_CLASS
    order = np.argsort(np.where(none, np.inf, -scores), axis=1, kind="stable")
    classes, scores = np.take_along_axis(classes, order, axis=1), np.take_along_axis(scores, order, axis=1)
    last = np.maximum((classes != NO_CLASS).sum(axis=1, keepdims=True) - 1, 0)
    return classes, np.where(classes == NO_CLASS, np.take_along_axis(scores, last, axis=1), scores)


def _repeats(classes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Whether a class is there twice, by map and location ``[n, L]``."""
    count = classes.shape[1]
    found = np.zeros((len(classes), classes.shape[2]), bool)
    if count > _PAIRS_UP_TO:
        ordered = np.sort(classes, axis=1)
        return np.asarray(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_CLASS)).any(axis=1))
    for one in range(1, count):
        for other in range(one):
            found |= (classes[:, one] == classes[:, other]) & (classes[:, one] != NO_CLASS)
    return found


def _problem(classes: NDArray[Any], scores: NDArray[np.floating[Any]], num_classes: int, width: int) -> str:
    """Say what is wrong with one map ``[K, L]``, the first thing that is."""
    none = (classes == NO_CLASS) if classes.dtype.kind in "iu" else np.zeros(classes.shape, bool)
    sizes = np.abs(scores.astype(np.float64))
    with np.errstate(invalid="ignore"):
        checks = (
            (~(sizes <= LARGEST_SCORE), "score", f"expected finite numbers, at most {LARGEST_SCORE:g}", scores),
            (~((classes >= 0) & (classes < num_classes) | none), "class", f"expected 0 to {num_classes - 1}", classes),
            (classes != np.floor(classes), "class", "expected whole numbers", classes),
        )
    for bad, what, expected, values in checks:
        if bad.any():
            rank, location = np.argwhere(bad)[0].tolist()
            return f"{what} {values[rank, location]} {_place(rank, location, width)}: {expected}"
    if none.all(axis=0).any():
        return f"no class at all {_place(None, int(np.argmax(none.all(axis=0))), width)}"
    twice = _repeats(classes.astype(np.uint16)[None])[0]
    if twice.any():
        location = int(np.argmax(twice))
        there = classes[:, location].tolist()
        again = next(value for value in there if there.count(value) > 1)
        return f"class {again:g} twice {_place(None, location, width)}: expected each once a location"
    return ""


def _place(rank: int | None, location: int, width: int) -> str:
    return f"at {'' if rank is None else f'k={rank}, '}row {location // width}, column {location % width}"


def _keep_decoded(scores: NDArray[np.float32], gaps: NDArray[np.uint8], ranges: NDArray[np.float32]) -> None:
    """Find the steps of scores that have been decoded before, where the usual one gives others by their last bits.

    A decoded score is max - step * level, rounded. Each score bounds the step from both sides; what lies between all bounds
    gives all scores again.
    """
    levels = np.cumsum(gaps, axis=1, dtype=np.uint8)
    off = np.abs(_decoded(levels, ranges) - scores).max(axis=(1, 2, 3))
    largest = np.abs(scores).max(axis=(1, 2, 3))
    for row in np.flatnonzero((off > 0) & (off <= _ULPS * np.spacing(largest))).tolist():
        for step in _steps(scores[row].astype(np.float64), levels[row].astype(np.float64), float(ranges[row, 0])):
            tried = np.array([[ranges[row, 0], step]], np.float32)
            if np.array_equal(_decoded(levels[row : row + 1], tried), scores[row : row + 1]):
                ranges[row] = tried[0]
                break


def _decoded(levels: NDArray[np.uint8], ranges: NDArray[np.float32]) -> NDArray[np.float32]:
    top, step = (ranges[:, place, None, None, None] for place in (0, 1))
    return np.asarray(top - step * levels.astype(np.float32))


def _steps(scores: NDArray[np.float64], levels: NDArray[np.float64], top: float) -> list[np.float32]:
    """Return steps to be tried, the likeliest first."""
    below = levels > 0
    if not below.any():
        return []
    half = np.spacing(np.abs(scores[below]).astype(np.float32)).astype(np.float64) / 2
    low = ((top - scores[below] - half) / levels[below]).max()
    high = ((top - scores[below] + half) / levels[below]).min()
    found = [np.float32((low + high) / 2), np.float32(low), np.float32(high)]
    for side in (np.float32(0), np.float32(np.inf)):
        near = found[0]
        for _ in range(4):
            near = np.nextafter(near, side)
            found.append(near)
    return found
