"""Scores on their way into a store: their unit settled once, and probabilities made logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import MapsError, OptionError
from labelstore.pipelines.observer import Observer
from labelstore.records import ScoresRecord
from labelstore.schema import NO_CLASS
from labelstore.units import FLOORS, LOG_SOFTMAX, LOGITS, SIGMOID, SOFTMAX, UNCLEAR, DenseUnit, ListedUnit, in_words

ROUNDING = 1e-2
"""How far above 1, or from it, a probability or a sum of them may be: values in half precision are rounded."""


def settle_scores(asked: str | None, test: DenseUnit | ListedUnit, where: str, observer: Observer) -> ScoresRecord:
    """Return what is to be done with scores.

    Parameters
    ----------
    asked
        What the user says: ``logits``, ``probabilities``, or None.
    test
        Has seen enough of them.
    where
        For messages.

    Raises
    ------
    MapsError
        They are probabilities, and nobody said so.
    OptionError
        They cannot be what the user says.
    """
    if asked == "logits":
        return ScoresRecord()
    if asked == "probabilities":
        return _said_to_be_probabilities(test, where)
    unit, listed = test.verdict(), isinstance(test, ListedUnit) and not test.all_classes
    if unit in (SOFTMAX, SIGMOID) or (unit == LOG_SOFTMAX and listed):
        raise MapsError(f"{where}: expected logits, got {in_words(unit)}: {why(unit)}")
    if unit == LOG_SOFTMAX:
        observer.note(f"{where}: {in_words(unit)}: right as they are")
        return ScoresRecord(LOG_SOFTMAX)
    if unit == UNCLEAR:
        observer.warning(
            f"{where}: all scores lie in {test.low:.4g}..{test.high:.4g}. If these are probabilities, or their logarithms, "
            "labels will be wrong: import them with --scores probabilities; if they are logits, --scores logits"
        )
    return ScoresRecord()


def why(unit: str) -> str:
    """Say what is wrong with probabilities as logits, and what to do."""
    wrong = "classes that are not listed would count for more" if unit == LOG_SOFTMAX else "labels would be next to uniform"
    return f"{wrong}. Say --scores probabilities, or --scores logits if they are logits after all"


def _said_to_be_probabilities(test: DenseUnit | ListedUnit, where: str) -> ScoresRecord:
    unit = test.if_probabilities()
    listed = isinstance(test, ListedUnit) and not test.all_classes
    if unit == LOGITS or (unit == SIGMOID and listed):
        expected = "values in 0..1 whose sums over the listed classes are at most 1" if listed else "values in 0..1"
        raise OptionError(
            f"--scores probabilities: {where}: expected {expected}, got {test.low:.4g}..{test.high:.4g}; are they logits? "
            "(Of a sigmoid's probabilities all classes are needed)"
        )
    return ScoresRecord(unit, floor=None if unit == LOG_SOFTMAX and not listed else FLOORS[unit])


def dense_logits_of(scores: NDArray[Any], record: ScoresRecord | None) -> tuple[NDArray[np.float32], list[str]]:
    """Return logits of dense scores ``[n, C, ...]``, and what is wrong with each ('' where nothing is)."""
    if record is not None and record.unit == LOG_SOFTMAX:
        return _centred(scores.astype(np.float64)), [""] * len(scores)
    if record is None or record.floor is None:
        return np.asarray(scores, np.float32), [""] * len(scores)
    exact = scores.astype(np.float64)
    axes = tuple(range(1, scores.ndim))
    with np.errstate(invalid="ignore"):
        good = (exact.min(axis=axes) >= -ROUNDING) & (exact.max(axis=axes) <= 1 + ROUNDING)
        if record.unit == SOFTMAX:
            good &= (np.abs(exact.sum(axis=1) - 1) <= ROUNDING).all(axis=tuple(range(1, scores.ndim - 1)))
        logits = np.log(np.maximum(exact, record.floor))
        if record.unit == SIGMOID:
            logits -= np.log(np.maximum(1 - exact, record.floor))
    expected = f"scores: expected probabilities{' that sum to 1' if record.unit == SOFTMAX else ''}, in 0..1"
    logits = logits.astype(np.float32) if record.unit == SIGMOID else _centred(logits)
    return logits, ["" if fine else expected for fine in good.tolist()]


def _centred(logs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logarithms with mean 0 over classes at every location: by baseline ``zero`` classes that are not kept count as 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(logs - logs.mean(axis=1, keepdims=True), np.float32)


def listed_logits_of(
    scores: NDArray[Any], classes: NDArray[Any], record: ScoresRecord | None, num_classes: int
) -> tuple[NDArray[Any], str]:
    """Return logits of the scores of one map ``[K, H, W]``, 0 for the classes that are not listed, and what is wrong ('').

    What the listed classes leave of 1 is shared by the others alike; none of them gets more than the least listed one.
    """
    if record is None or record.unit == LOGITS or record.floor is None:
        return scores, ""
    there = np.ones(classes.shape, bool) if classes.dtype.kind == "f" else classes != NO_CLASS
    with np.errstate(invalid="ignore", over="ignore"):
        given = scores.astype(np.float64)
        values = np.where(there, np.exp(given) if record.unit == LOG_SOFTMAX else given, 0)
        total = values.sum(axis=0)
        if not (values.min() >= -ROUNDING and total.max() <= 1 + ROUNDING):
            logs = "logarithms of " if record.unit == LOG_SOFTMAX else ""
            return scores, f"scores: expected {logs}probabilities in 0..1 that sum to at most 1"
    logits = np.log(np.maximum(values, record.floor))
    absent = num_classes - there.sum(axis=0)
    least = np.where(there, values, np.inf).min(axis=0)
    share = np.minimum(np.maximum(1 - total, 0) / np.maximum(absent, 1), least)
    return (logits - np.where(absent > 0, np.log(np.maximum(share, record.floor)), 0)).astype(np.float32), ""
