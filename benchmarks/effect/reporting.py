"""The study's tables in Markdown, and its plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effect.running import Result
from effect.statistics import BySeed, Estimate, estimate, paired


@dataclass(frozen=True)
class Line:
    """An arm: percent of test scenes of one object, and of several, and how much more of the former than two other arms."""

    arm: str
    rate: float
    one: Estimate
    several: Estimate
    over_single: Estimate | None
    over_online: Estimate | None


def summarise(results: Iterable[Result], names: Sequence[str], single: str, online: str) -> list[Line]:
    """One line an arm, in the order of names; those without results are left out."""
    one: dict[str, dict[int, float]] = defaultdict(dict)
    several: dict[str, dict[int, float]] = defaultdict(dict)
    rates: dict[str, float] = {}
    for result in results:
        arm = result.job.arm
        one[arm][result.job.seed], several[arm][result.job.seed] = result.one, result.several
        rates[arm] = result.job.rate
    return [
        Line(
            arm,
            rates[arm],
            estimate(list(one[arm].values())),
            estimate(list(several[arm].values())),
            _over(one, arm, single),
            _over(one, arm, online),
        )
        for arm in names
        if arm in one
    ]


def _over(by_arm: Mapping[str, BySeed], arm: str, other: str) -> Estimate | None:
    return paired(by_arm[arm], by_arm[other]) if arm != other and other in by_arm else None


def table(lines: Sequence[Line]) -> str:
    """Markdown: means with the standard deviation of a seed; paired differences with their 95 % intervals."""
    rows = [
        "| | learning rate | one object, % | several, % | over single label | over online distillation |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        means = (f"{found.mean:.1f} ± {found.deviation:.1f}" for found in (line.one, line.several))
        gains = (_interval(found) for found in (line.over_single, line.over_online))
        rows.append(f"| {line.arm} | {line.rate:g} | {' | '.join(means)} | {' | '.join(gains)} |")
    return "\n".join(rows)


def _interval(found: Estimate | None) -> str:
    return "" if found is None else f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def plot(by_kind: Mapping[str, Sequence[Line]], file: Path) -> None:
    """Each arm's mean with its 95 % interval, a panel a kind of scenes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    most = max(map(len, by_kind.values()))
    figure, axes = plt.subplots(1, len(by_kind), figsize=(5.5 * len(by_kind), 0.8 + 0.42 * most), squeeze=False)
    for axis, (kind, lines) in zip(axes[0], by_kind.items(), strict=True):
        places = range(len(lines), 0, -1)
        for place, line in zip(places, lines, strict=True):
            colour = "tab:orange" if line.arm.startswith("ReLabel") else "tab:grey" if "online" in line.arm else "tab:blue"
            half = line.one.high - line.one.mean
            axis.errorbar(line.one.mean, place, xerr=half, fmt="o", color=colour, capsize=3)
        axis.set_yticks(list(places), [line.arm for line in lines])
        axis.set_ylim(0.4, len(lines) + 0.6)
        axis.set_xlabel("test scenes of one object, % right")
        axis.set_title(f"{kind}: mean of {lines[0].one.seeds} seeds, 95 % interval", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
