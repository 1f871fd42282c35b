"""The study's tables in Markdown, and its plot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effect.running import Result
from effect.statistics import Estimate, estimate, paired


@dataclass(frozen=True)
class Line:
    """An arm: percent right of test scenes of one object and of several; of the former, how much more than other arms."""

    arm: str
    rate: float
    one: Estimate
    several: Estimate
    over: Mapping[str, Estimate]


def summarise(results: Iterable[Result], names: Sequence[str], against: Sequence[str]) -> list[Line]:
    """One line an arm, in the order of names; those without results are left out."""
    one: dict[str, dict[int, float]] = defaultdict(dict)
    several: dict[str, dict[int, float]] = defaultdict(dict)
    rates: dict[str, float] = {}
    for result in results:
        arm = result.job.arm
        one[arm][result.job.seed], several[arm][result.job.seed] = result.one, result.several
        rates[arm] = result.job.rate

    def line(arm: str) -> Line:
        over = {other: paired(one[arm], one[other]) for other in against if other != arm and other in one}
        return Line(arm, rates[arm], estimate(list(one[arm].values())), estimate(list(several[arm].values())), over)

    return [line(arm) for arm in names if arm in rates]


def table(lines: Sequence[Line], against: Sequence[str]) -> str:
    """Markdown: means with the standard deviation of a seed; paired differences with their 95 % intervals."""
    headings = ("", "learning rate", "one object, %", "several, %", *(f"over {other}" for other in against))
    rows = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for line in lines:
        means = [f"{found.mean:.1f} ± {found.deviation:.1f}" for found in (line.one, line.several)]
        gains = [_interval(line.over.get(other)) for other in against]
        rows.append(f"| {' | '.join([line.arm, f'{line.rate:g}', *means, *gains])} |")
    return "\n".join(rows)


@dataclass(frozen=True)
class Contrast:
    """Two arms under other circumstances: percent right of test scenes of one object, and the difference."""

    what: str
    lower: Estimate
    upper: Estimate
    gain: Estimate


def contrast(what: str, lower: Iterable[Result], upper: Iterable[Result]) -> Contrast:
    below, above = ({result.job.seed: result.one for result in results} for results in (lower, upper))
    return Contrast(what, estimate(list(below.values())), estimate(list(above.values())), paired(above, below))


def contrast_table(found: Sequence[Contrast], lower: str, upper: str) -> str:
    rows = [f"| | {lower} | {upper} | difference |", "|---|---|---|---|"]
    for each in found:
        means = [f"{arm.mean:.1f} ± {arm.deviation:.1f}" for arm in (each.lower, each.upper)]
        rows.append(f"| {' | '.join([each.what, *means, _interval(each.gain)])} |")
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
