"""The learning rate of every arm: the same candidates, the same seeds, chosen on validation scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from effect.running import Job, Result

SEEDS = (100,)
"""None of those that are reported."""
CLOSE = 0.5
"""Points: the standard error of a percentage of the validation scenes. A lower rate is the steadier one."""


def tuning_jobs(names: Iterable[str], rates: Sequence[float], seeds: Sequence[int] = SEEDS) -> list[Job]:
    return [Job(name, rate, seed, "validation") for name in names for rate in rates for seed in seeds]


def best_rates(results: Iterable[Result]) -> dict[str, float]:
    """By arm, the lowest rate whose mean on scenes of one object is within `CLOSE` of the best rate's."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.job.arm][result.job.rate].append(result.one)
    return {arm: _lowest({rate: mean(right) for rate, right in by_rate.items()}) for arm, by_rate in found.items()}


def _lowest(right: Mapping[float, float]) -> float:
    return min(rate for rate, percent in right.items() if percent >= max(right.values()) - CLOSE)
