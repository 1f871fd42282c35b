"""What the fuzzers of stores have in common: cases by number, a process that tries them, a summary of what was found."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from hostile_cases import Case
from hostile_jail import Jail, Verdict

MakeCase = Callable[[int], Case]
LayOut = Callable[[Path], tuple[MakeCase, Jail]]


def main(description: str | None, lay_out: LayOut) -> int:
    """Run a fuzzer as a program; the exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after so long, whatever the number of cases")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case; the others follow")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found = fuzz(*lay_out(Path(folder)), options.seed, options.cases, options.seconds)
    print(_report(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))
    return bool(found["findings"])


def fuzz(make: MakeCase, jail: Jail, seed: int, cases: int, seconds: float) -> dict[str, Any]:
    """Try cases, until there are enough or the time is over."""
    verdicts: list[tuple[Case, Verdict]] = []
    start = time.monotonic()
    with jail:
        for number in itertools.islice(itertools.count(seed), cases):
            case = make(number)
            verdict = jail.try_case(case)
            shutil.rmtree(case.store, ignore_errors=True)
            verdicts.append((case, verdict))
            for problem in verdict.problems[:1]:
                print(f"\n{_title(case)}\n  {problem}", file=sys.stderr)
            if number % 50 == 0:
                print(f"\r{len(verdicts):,} of {cases:,} cases", end="", file=sys.stderr, flush=True)
            if time.monotonic() - start > seconds:
                break
    print(file=sys.stderr)
    return _summary(verdicts, time.monotonic() - start, jail)


def _summary(verdicts: list[tuple[Case, Verdict]], seconds: float, jail: Jail) -> dict[str, Any]:
    by_change = Counter(change.split(":")[0] for case, _ in verdicts for change in case.changes[:-1])
    times = [verdict.seconds for _, verdict in verdicts]
    return {
        "cases": len(verdicts),
        "seconds": seconds,
        "first": verdicts[0][0].number,
        "changes": dict(by_change),
        "honest": sum(case.honest for case, _ in verdicts),
        "opened": sum(verdict.opened for _, verdict in verdicts),
        "answers": sum(verdict.answers for _, verdict in verdicts),
        "refusals": dict(Counter(name for _, verdict in verdicts for name in verdict.refusals)),
        "deaths": jail.deaths,
        "most_seconds": jail.seconds,
        "slowest_seconds": max(times),
        "median_seconds": float(np.median(times)),
        "bound_megabytes": jail.megabytes,
        "most_megabytes": max(verdict.megabytes for _, verdict in verdicts),
        "findings": [
            {"case": case.number, "original": case.original, "changes": case.changes, "problems": verdict.problems}
            for case, verdict in verdicts
            if verdict.problems
        ],
        "largest": [_title(case) for case, _ in sorted(verdicts, key=lambda pair: -pair[1].megabytes)[:5]],
        "slowest": [_title(case) for case, _ in sorted(verdicts, key=lambda pair: -pair[1].seconds)[:5]],
    }


def _report(found: dict[str, Any]) -> str:
    refusals = ", ".join(f"{name} {count:,}" for name, count in sorted(found["refusals"].items(), key=lambda item: -item[1]))
    return "\n".join(
        (
            f"{found['cases']:,} hostile stores in {found['seconds']:.0f} s, from number {found['first']} on",
            f"opened: {found['opened']:,}; answers: {found['answers']:,}; with a checksum that tells: {found['honest']:,}",
            f"how questions ended: {refusals}",
            f"a store takes {found['median_seconds']:.3f} s (median), at most {found['slowest_seconds']:.2f} of "
            f"{found['most_seconds']:g} s",
            f"memory beyond what the process had: at most {found['most_megabytes']:,} of {found['bound_megabytes']:,} MB",
            f"processes that died or hung: {found['deaths']}",
            f"findings: {len(found['findings'])}",
            *(_short(finding) for finding in found["findings"]),
        )
    )


def _short(finding: dict[str, Any]) -> str:
    what = f"{finding['case']} ({finding['original']}; {'; '.join(finding['changes'])})"
    return f"  {what}: {finding['problems'][0].splitlines()[0]}"


def _title(case: Case) -> str:
    return f"case {case.number}, of {case.original}: {'; '.join(case.changes)}"
