"""Means, spreads and paired differences of arms over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, the standard deviation of one seed, and the 95 % interval of the mean."""

    mean: float
    deviation: float
    low: float
    high: float
    seeds: int


def estimate(values: Sequence[float]) -> Estimate:
    """Of one seed alone: no interval."""
    given = np.asarray(values, float)
    mean, count = float(given.mean()), len(given)
    if count == 1:
        return Estimate(mean, math.nan, -math.inf, math.inf, 1)
    deviation = float(given.std(ddof=1))
    half = float(student.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Estimate(mean, deviation, mean - half, mean + half, count)


def paired(these: BySeed, those: BySeed) -> Estimate:
    """``these - those``, seed by seed: what both share (images, order, crops, initial weights) does not widen the interval."""
    seeds = sorted(set(these) & set(those))
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(these)} and {sorted(those)}")
    return estimate([these[seed] - those[seed] for seed in seeds])
