"""Reads hostile stores: whole ones, mutilated at random, their checksums put right or not.

Every store is opened in a process with bounded memory, in every way that there is, and asked for everything that a reader
gives. What must not happen: an error that is none of labelstore's, a process that dies, more than 10 seconds or 2 GB a store,
a soft label that is none; and, where a checksum is left that does not fit, anything other than what the original serves.

python benchmarks/fuzz_reader.py [--cases 10000] [--seconds 600] [--seed N] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from hostile_cases import Case, make_case
from hostile_jail import MEGABYTES, SECONDS, Jail, Verdict
from hostile_stores import make_originals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after so long, whatever the number of cases")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case; the others follow")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found = fuzz(Path(folder), options.seed, options.cases, options.seconds)
    print(_report(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))
    return bool(found["findings"])


def fuzz(folder: Path, seed: int, cases: int, seconds: float) -> dict[str, Any]:
    """Try cases, until there are enough or the time is over."""
    originals, scratch = folder / "originals", folder / "scratch"
    originals.mkdir()
    scratch.mkdir()
    whole, start = make_originals(originals), time.monotonic()
    verdicts: list[tuple[Case, Verdict]] = []
    with Jail(originals, scratch) as jail:
        for number in itertools.islice(itertools.count(seed), cases):
            case = make_case(number, whole, scratch)
            verdict = jail.try_case(case)
            shutil.rmtree(case.store)
            verdicts.append((case, verdict))
            for problem in verdict.problems[:1]:
                print(f"\n{_title(case)}\n  {problem}", file=sys.stderr)
            if number % 50 == 0:
                print(f"\r{len(verdicts):,} of {cases:,} cases", end="", file=sys.stderr, flush=True)
            if time.monotonic() - start > seconds:
                break
    print(file=sys.stderr)
    return _summary(verdicts, time.monotonic() - start, jail.deaths)


def _summary(verdicts: list[tuple[Case, Verdict]], seconds: float, deaths: int) -> dict[str, Any]:
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
        "deaths": deaths,
        "slowest_seconds": max(times),
        "median_seconds": float(np.median(times)),
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
            f"stores refused, or something in them, by error: {refusals}",
            f"a store takes {found['median_seconds']:.3f} s (median), at most {found['slowest_seconds']:.2f} of {SECONDS:g} s",
            f"memory beyond what the process had: at most {found['most_megabytes']:,} of {MEGABYTES:,} MB",
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


if __name__ == "__main__":
    sys.exit(main())
