"""What unit scores of classes are in: logits, or probabilities, told by their values. NumPy alone.

A store keeps logits, of which readers take a softmax. Probabilities taken for logits give labels that are next to uniform, so
they are recognised wherever scores come in. Real logits must pass: a verdict rests on all values of a batch or file together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOGITS, SOFTMAX, SIGMOID, LOG_SOFTMAX, UNCLEAR = "logits", "softmax", "sigmoid", "log_softmax", "unclear"
"""Verdicts. ``UNCLEAR``: all values lie in [0, 1], but too few classes or none near 1 to call them probabilities."""
FLOORS = {SOFTMAX: 1e-12, SIGMOID: 1e-7, LOG_SOFTMAX: 1e-12}
"""The least probability of which a logarithm is taken; of a sigmoid's also the least distance from 1, as float32 has it."""
MANY_CLASSES = 20
"""From so many classes on no score below 0 and none above 1 is no accident: one in 2^20 if signs are fair coins."""
ENOUGH_LOCATIONS = 64
_EXACT, _ROUNDED, _EDGE = 1e-5, 1e-2, 1e-6
_SHARE_OF_SPREAD, _MANY_ZEROS = 0.1, 0.05
_SURE, _NEARLY_ALL, _MANY_LISTED = 0.8, 0.98, 4
_LOGS_OFF = 0.02


class DenseUnit:
    """Tells the unit of scores of all classes, of which some are added at a time. For one thread.

    A softmax: no value is negative, and sums over classes are 1, exactly or at least far more constant than the values are. A
    sigmoid: all values in [0, 1], of `MANY_CLASSES` or more, and hardly any 0, as there are many behind a ReLU.
    """

    def __init__(self) -> None:
        self.locations, self.low, self.high = 0, np.inf, -np.inf
        self._rounding = self._sum_off = self._exp_off = 0.0
        self._zeros = self._values = 0
        self._lows: NDArray[Any] | None = None
        self._highs: NDArray[Any] | None = None

    def add(self, scores: NDArray[Any]) -> None:
        """Take scores ``[n, C]`` or ``[n, C, ...]`` into account; images with a value that is not finite are left out."""
        flat = scores.reshape(*scores.shape[:2], -1)
        flat = flat[np.isfinite(flat).all(axis=(1, 2))]
        if not flat.size:
            return
        lows, highs = flat.min(axis=(0, 2)).astype(np.float64), flat.max(axis=(0, 2)).astype(np.float64)
        self._lows = lows if self._lows is None else np.minimum(lows, self._lows)
        self._highs = highs if self._highs is None else np.maximum(highs, self._highs)
        self.locations += flat.shape[0] * flat.shape[2]
        self._zeros, self._values = self._zeros + flat.size - np.count_nonzero(flat), self._values + flat.size
        self.low, self.high = float(self._lows.min()), float(self._highs.max())
        if flat.dtype == np.float16:
            self._rounding = float(np.finfo(np.float16).eps)
        if self.low >= -self._edge and self.high <= 1 + self._edge:
            self._sum_off = max(self._sum_off, float(np.abs(flat.sum(axis=1, dtype=np.float64) - 1).max()))
        if self.high <= self._edge:
            total = np.exp(flat.astype(np.float64)).sum(axis=1)
            self._exp_off = max(self._exp_off, float(np.abs(total - 1).max()))

    @property
    def _edge(self) -> float:
        return max(_EDGE, self._rounding)

    def verdict(self) -> str:
        """Return the unit; ``LOGITS`` where nothing has been added."""
        if self._lows is None or self._highs is None:
            return LOGITS
        if self.low >= -self._edge and self.high <= 1 + self._edge:
            spread = float((self._highs - self._lows).max())
            if self._sum_off <= max(_EXACT, self._rounding, min(_ROUNDED, _SHARE_OF_SPREAD * spread)):
                return SOFTMAX
            if self.low < 0 or self.high <= 0 or self.high > 1:  # a head of zeros gives nothing else
                return LOGITS
            relu = self._zeros > _MANY_ZEROS * self._values
            return SIGMOID if len(self._lows) >= MANY_CLASSES and not relu else UNCLEAR
        return LOG_SOFTMAX if self.high <= self._edge and self._exp_off <= _LOGS_OFF else LOGITS

    def if_probabilities(self) -> str:
        """Return the unit of what is said to be probabilities; ``LOGITS`` if it cannot be."""
        found = self.verdict()
        zeros = self.low == self.high == 0
        return SIGMOID if found == UNCLEAR or zeros else found


class ListedUnit:
    """Tells the unit of the scores of the K best classes of every location. For one thread.

    The best of many small logits lie in [0, 1] by themselves. Probabilities: sums never exceed 1, get near it, and somewhere
    one class has nearly all of it, where four or more are listed. Their logarithms: no value above 0, and exponentials
    likewise. Where all classes are listed: as `DenseUnit`.
    """

    def __init__(self, num_classes: int) -> None:
        self.locations, self.low, self.high = 0, np.inf, -np.inf
        self._num_classes = num_classes
        self.all_classes = False
        self._most_listed = 0
        self._dense = DenseUnit()
        self._rounding = self._sum = self._exp_sum = 0.0

    def add(self, scores: NDArray[Any], listed: NDArray[np.bool_] | None = None) -> None:
        """Take scores ``[n, K, ...]`` into account, those that are ``listed``, of images without other values than finite."""
        flat = scores.reshape(*scores.shape[:2], -1)
        there = np.ones(flat.shape, bool) if listed is None else listed.reshape(flat.shape)
        good = np.isfinite(flat).all(axis=(1, 2)) & there.any(axis=(1, 2))
        flat, there = flat[good], there[good]
        if not flat.size:
            return
        if flat.shape[1] == self._num_classes:
            self.all_classes = True
            self._dense.add(np.sort(flat, axis=1))
        if flat.dtype == np.float16:
            self._rounding = float(np.finfo(np.float16).eps)
        self._most_listed = max(self._most_listed, flat.shape[1])
        values = flat.astype(np.float64)
        self.locations += flat.shape[0] * flat.shape[2]
        self.low = min(self.low, float(np.where(there, values, np.inf).min()))
        self.high = max(self.high, float(np.where(there, values, -np.inf).max()))
        self._sum = max(self._sum, float(np.where(there, values, 0).sum(axis=1).max()))
        if self.high <= self._edge:
            self._exp_sum = max(self._exp_sum, float(np.where(there, np.exp(values), 0).sum(axis=1).max()))

    @property
    def _edge(self) -> float:
        return max(_EDGE, self._rounding)

    def verdict(self) -> str:
        """Return the unit; ``LOGITS`` where nothing has been added. Never ``SIGMOID``: see `UNCLEAR`."""
        if not self.locations or self.low == self.high == 0:
            return LOGITS
        if self._dense.locations:
            return self._dense.verdict()
        tolerance, many = max(_EXACT, self._rounding), self._most_listed >= _MANY_LISTED
        if self.low >= -self._edge and self.high <= 1 + self._edge:
            sure = self._sum <= 1 + tolerance and self._sum >= _NEARLY_ALL and self.high >= _SURE
            return SOFTMAX if sure and many else UNCLEAR
        if self.high <= self._edge and self._exp_sum <= 1 + tolerance + _LOGS_OFF:
            sure = self._exp_sum >= _NEARLY_ALL and self.high >= np.log(_SURE)
            return LOG_SOFTMAX if sure and many else UNCLEAR
        return LOGITS

    def if_probabilities(self) -> str:
        """Return the unit of what is said to be probabilities; ``LOGITS`` if it cannot be, ``SIGMOID`` where sums exceed 1."""
        if self._dense.locations:
            return self._dense.if_probabilities()
        found = self.verdict()
        if found != UNCLEAR:
            return found
        if self.high <= self._edge and self.low < -self._edge:
            return LOG_SOFTMAX
        return SOFTMAX if self._sum <= 1 + max(_EXACT, self._rounding) else SIGMOID


def in_words(unit: str) -> str:
    """What values of a unit are called in messages."""
    return {
        SOFTMAX: "probabilities (values in 0..1 that sum to 1 over classes)",
        SIGMOID: "probabilities of each class by itself (values in 0..1, as of a sigmoid)",
        LOG_SOFTMAX: "log-probabilities (values up to 0, whose exponentials sum to 1)",
        UNCLEAR: "values in 0..1 alone, as of a sigmoid or softmax",
    }.get(unit, unit)
