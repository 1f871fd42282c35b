"""The learning rate of every arm: the same candidates, the same seeds, chosen on validation scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from effect.running import Job, Result

SEEDS = (100,)
"""None of those that are reported."""


def tuning_jobs(names: Iterable[str], rates: Sequence[float], seeds: Sequence[int] = SEEDS) -> list[Job]:
    return [Job(name, rate, seed, "validation") for name in names for rate in rates for seed in seeds]


def best_rates(results: Iterable[Result]) -> dict[str, float]:
    """By arm, the rate with the highest mean on scenes of one object; of equal ones the lower."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.job.arm][result.job.rate].append(result.one)
    return {
        arm: min(by_rate, key=lambda rate: (-sum(by_rate[rate]) / len(by_rate[rate]), rate)) for arm, by_rate in found.items()
    }
