"""Ways timed side by side, what came out held against its goal, and memory. Imports NumPy alone.

All that is compared is timed in one run, in rounds that take turns: a machine's speed drifts, the ratio within a round does
much less. So ratios are taken round by round; reported are their median and quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_PAUSE = 0.02
"""Seconds between ways: libraries' idle threads spin for milliseconds before they sleep."""


@dataclass(frozen=True)
class Spread:
    """A median, with its quartiles or the ends of an interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One line of a table: what was measured, and between which bounds it should be."""

    what: str
    measured: Spread
    unit: str = "x"
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """None where there is no goal."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.measured.median >= self.least) and (
            self.most is None or self.measured.median <= self.most
        )

    @property
    def goal(self) -> str:
        bounds = ((">=", self.least), ("<=", self.most))
        return " ".join(f"{sign} {bound:g}{self.unit}" for sign, bound in bounds if bound is not None)


def spread(values: Iterable[float]) -> Spread:
    low, median, high = np.percentile(list(values), [25, 50, 75]).tolist()
    return Spread(median, low, high)


def single(value: float) -> Spread:
    """What was measured once."""
    return Spread(value, value, value)


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """``above / below``, round by round."""
    return spread(np.asarray(above) / np.asarray(below))


def median_interval(values: Sequence[float], resamples: int = 10_000) -> Spread:
    """The median with its 95 % interval: the bootstrap's percentiles."""
    given = np.asarray(values)
    drawn = np.random.default_rng(0).integers(0, len(given), (resamples, len(given)))
    low, high = np.percentile(np.median(given[drawn], axis=1), [2.5, 97.5]).tolist()
    return Spread(float(np.median(given)), low, high)


def side_by_side(
    ways: Mapping[str, Callable[[T], object]],
    rounds: Sequence[Sequence[T]],
    fewer: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds an item, by way and round.

    Each way runs once before, uncounted. In each round every way works through the round's items (``fewer``: only so many of
    them, for slow ones); who comes first changes from round to round, and so does the direction.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(rounds[0][0])
    for number, items in enumerate(rounds):
        names = list(ways)[:: -1 if number % 2 else 1]
        first = number // 2 % len(names)
        for name in names[first:] + names[:first]:
            mine, way = items[: (fewer or {}).get(name, len(items))], ways[name]
            time.sleep(_PAUSE)
            start = clock()
            for item in mine:
                way(item)
            seconds[name].append((clock() - start) / len(mine))
    return seconds


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def private_bytes() -> int:
    """Memory that is this process's alone: dirty pages, and clean ones that nobody else maps (code of its libraries)."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {name.rstrip(":"): int(value) for name, value, _ in lines}
    return 1024 * (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"])


def in_new_process(module: str, function: str, *arguments: object) -> Any:
    """What a function of a module beside this one returns (JSON) in a fresh interpreter."""
    given = ", ".join(repr(str(argument) if isinstance(argument, Path) else argument) for argument in arguments)
    code = f"import json, {module}; print(json.dumps({module}.{function}({given})))"
    out = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    return json.loads(out.stdout.splitlines()[-1])


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what all benchmarks take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def report(title: str, lines: Sequence[Line], file: Path | None, *, interval: str = "quartiles", **more: object) -> None:
    """Print a table, and write the same and more to a JSON file; ``interval`` says what the lines' low and high are."""
    width = max(len(line.what) for line in lines)
    print(f"{title}\n  {'':{width}}  {'goal':>10}  {'measured':>10}  {interval:>19}  met")
    for line in lines:
        found = line.measured
        between = f"{_number(found.low)} to {_number(found.high)}" if found.low != found.high else ""
        met = {True: "yes", False: "NO", None: ""}[line.met]
        print(f"  {line.what:{width}}  {line.goal:>10}  {_number(found.median) + line.unit:>10}  {between:>19}  {met}")
    if file is not None:
        table = [{**asdict(line), "goal": line.goal, "met": line.met} for line in lines]
        file.write_text(json.dumps({"title": title, "interval": interval, "lines": table, **more}, indent=2))


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
