"""Does training on stored label maps give better networks? The paper's comparison in small, through labelstore itself.

Scenes of several objects with one label are written as image files, annotated by `labelstore annotate` with a teacher that has
seen other scenes, and read back in a DataLoader. Students differ in their labels alone: the label that an image came with, that
label smoothed, the whole image's soft label, the crop's (ReLabel), CutMix with both, and the teacher run on every crop (online
distillation). Every arm has the same images, order, crops, initial weights, steps and schedule; learning rates are those that a
tuning on validation scenes found (--full tunes anew); the test scenes were seen by no teacher. What is done is kept in --work.

python benchmarks/relabel_effect.py [--data digits] [--data stamps] [--full] [--seeds 5] [--json FILE] [--plot FILE.png]

Stamps are Tux Paint's (Debian's package tuxpaint-stamps-default), found in --stamps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from effect.ablations import ablations, make_stores
from effect.cost import epoch_seconds
from effect.objects import STAMPS
from effect.reporting import Contrast, Line, contrast, contrast_table, plot, summarise, table
from effect.running import GLOBAL, MAIN, ONLINE, RELABEL, SINGLE, STORE, Job, Result, run_all
from effect.settings import RATES_FOUND, STUDIES, STUDIES_ON_A_GPU, TINY
from effect.study import Study, Workshop, accuracy
from effect.tuning import best_rates, tuning_jobs
from measuring import arguments, cores, spread

COMPARED = (SINGLE, GLOBAL, ONLINE)
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "one object a scene": {"objects": "1"},
    "two to four": {"objects": "2 3 4"},
    "one to three, three times the epochs": {"longer": 3},
}


def workshop(root: Path, study: Study, stamps: Path) -> Workshop:
    """A folder of this study's own: other settings lie elsewhere."""
    folder = root / f"{study.kind}-{zlib.crc32(repr(study).encode()):08x}"
    folder.mkdir(parents=True, exist_ok=True)
    return Workshop(folder, study, stamps)


def prepare(shop: Workshop) -> float:
    """Make scenes, teacher and store before processes ask for them; return the teacher's percent on test scenes."""
    print(f"{shop.study.kind}: scenes, the teacher and a store of its label maps, where they are not there yet", flush=True)
    shop.store(STORE)
    one, _ = shop.held_out("test")
    shop.held_out("validation")
    return accuracy(shop.teacher(), one, shop.study.classes, shop.test_side)


def measure(shop: Workshop, given: argparse.Namespace) -> dict[str, Any]:
    """All trainings of one kind of scenes, and what they come to."""
    start = time.perf_counter()
    teacher = prepare(shop)
    print(f"{shop.study.kind}: the teacher has {teacher:.1f} % of the test scenes of one object right", flush=True)
    tuning: list[Result] = []
    rates = RATES_FOUND[shop.study.kind]
    if given.full or given.gpu:
        tuning = run_all(shop, tuning_jobs(MAIN, shop.study.rates), given.processes)
        rates = best_rates(tuning)
    jobs = [Job(name, rates[name], seed) for name in MAIN for seed in range(given.seeds)]
    others = list(ablations(shop, STORE)) if given.full else []
    jobs += [Job(name, rates[RELABEL], seed) for name in others for seed in range(given.seeds)]
    if given.full:
        make_stores(shop)
    results = run_all(shop, jobs, given.processes)
    contrasts = circumstances(shop, rates, given) if given.full else []
    seconds = epoch_seconds(shop, MAIN, given.rounds)
    return {
        "kind": shop.study.kind,
        "study": asdict(shop.study),
        "teacher": teacher,
        "rates": rates,
        "tuning": [asdict(result) for result in tuning],
        "results": [asdict(result) for result in results],
        "epoch_seconds": seconds,
        "minutes": (time.perf_counter() - start) / 60,
        "lines": summarise(results, MAIN, COMPARED),
        "circumstances": contrasts,
        "ablations": summarise(results, others, [RELABEL]),
    }


def circumstances(shop: Workshop, rates: dict[str, float], given: argparse.Namespace) -> list[Contrast]:
    """ReLabel against the single label with other numbers of objects in the students' scenes, and with more epochs."""
    found = []
    for what, more in CIRCUMSTANCES.items():
        pair = [[Job(arm, rates[arm], seed, **more) for seed in range(given.seeds)] for arm in (SINGLE, RELABEL)]
        for shape in {tuple(map(int, job.objects.split())) for job in pair[0]}:
            shop.store(STORE, counts=shape)  # before processes ask for it
        run_all(shop, [*pair[0], *pair[1]], given.processes)
        found.append(contrast(what, *(run_all(shop, jobs, 1) for jobs in pair)))
    return found


def cost_table(seconds: dict[str, list[float]]) -> str:
    """Epochs against the single label's, round by round."""
    rows = ["| | seconds an epoch | times single label's |", "|---|---|---|"]
    for name, theirs in seconds.items():
        ratio = spread(np.array(theirs) / np.array(seconds[SINGLE]))
        rows.append(f"| {name} | {np.median(theirs):.2f} | {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |")
    return "\n".join(rows)


def show(found: dict[str, Any]) -> None:
    lines: list[Line] = found["lines"]
    print(f"\n{found['kind']}: {found['minutes']:.0f} minutes, {cores()} cores; ± is the standard deviation of a seed\n")
    print(table(lines, COMPARED), "\n\n", cost_table(found["epoch_seconds"]), "\n", sep="")
    if found["ablations"]:
        print(table(found["ablations"], [RELABEL]), "\n")
        print(contrast_table(found["circumstances"], SINGLE, RELABEL), "\n")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", action="append", choices=list(STUDIES), help="may be given again  [default: digits]")
    parser.add_argument("--full", action="store_true", help="also tune the learning rates, and run the ablations")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="of timed epochs")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--work", type=Path, default=Path("bench-out/effect"))
    parser.add_argument("--stamps", type=Path, default=STAMPS, metavar="DIR")
    parser.add_argument("--tiny", action="store_true", help="see that all runs: figures mean nothing")
    parser.add_argument("--gpu", action="store_true", help="a ResNet-18 at 64 px on a CUDA device, one process, tuned")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    given = parser.parse_args()
    kinds = given.data or ["digits"]
    if "stamps" in kinds and not given.stamps.is_dir():
        parser.error(
            f"--stamps {given.stamps}: no such folder; apt-get install tuxpaint-stamps-default, or unpack it elsewhere"
        )
    if given.gpu:
        if not torch.cuda.is_available():
            parser.exit(2, "no CUDA device: nothing measured\n")
        given.processes = 1
    settings = TINY if given.tiny else STUDIES_ON_A_GPU if given.gpu else STUDIES
    studies = {kind: settings[kind] for kind in kinds}
    found = {kind: measure(workshop(given.work, study, given.stamps), given) for kind, study in studies.items()}
    for each in found.values():
        show(each)
    if given.plot is not None:
        plot({kind: each["lines"] for kind, each in found.items()}, given.plot)
    if given.json is not None:
        given.json.write_text(json.dumps([_plain(each) for each in found.values()], indent=2))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, **{what: [asdict(line) for line in found[what]] for what in ("lines", "ablations", "circumstances")}}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, the same command goes on", file=sys.stderr)
        sys.exit(130)
