"""Trainings of arms by seed and learning rate, in processes side by side; what is done is kept and not done again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from effect import arms, networks
from effect.ablations import ablations
from effect.arms import Make
from effect.learning import train
from effect.study import Workshop, accuracy

STORE = "spectral"
"""What `labelstore annotate` makes if nothing is said."""
SINGLE, SMOOTHED, GLOBAL, RELABEL, ONLINE = (
    "single label",
    "label smoothing",
    "global multi-label",
    "ReLabel",
    "online distillation",
)
CUTMIX = " + CutMix"
MAIN = (SINGLE, SMOOTHED, GLOBAL, RELABEL, SINGLE + CUTMIX, RELABEL + CUTMIX, ONLINE)


@dataclass(frozen=True)
class Job:
    """One training, judged by ``validation`` or ``test`` scenes.

    ``objects`` are those of a training scene, where not the study's ("1" or "1 2 3"); ``longer`` multiplies the epochs.
    """

    arm: str
    rate: float
    seed: int
    part: str = "test"
    objects: str = ""
    longer: int = 1

    def __str__(self) -> str:
        said = [self.arm, f"seed {self.seed}", f"rate {self.rate:g}"]
        said += [f"{self.objects.replace(' ', ' or ')} objects"] if self.objects else []
        said += [f"{self.longer} times the epochs"] if self.longer > 1 else []
        return ", ".join(said)


@dataclass(frozen=True)
class Result:
    """Percent right of scenes of one object and of several (there: the best class is one that the scene shows)."""

    job: Job
    one: float
    several: float


def make_arm(shop: Workshop, name: str) -> Make:
    """How an arm of this name is made, CutMix aside."""
    plain: dict[str, Make] = {
        SINGLE: arms.single,
        SMOOTHED: lambda material: arms.single(material, arms.SMOOTHING),
        GLOBAL: lambda material: arms.whole(material, STORE),
        RELABEL: lambda material: arms.crops(material, STORE),
        ONLINE: arms.online,
    }
    return plain[name] if name in plain else ablations(shop, STORE)[name]


def run_job(shop: Workshop, job: Job) -> Result:
    """Train and judge, with one thread."""
    torch.set_num_threads(1)
    material = shop.material(STORE, tuple(map(int, job.objects.split())))
    arm = make_arm(shop, job.arm.removesuffix(CUTMIX))(material)
    if job.arm.endswith(CUTMIX):
        arm = arms.with_cutmix(arm, job.seed)
    torch.manual_seed(job.seed)
    model = networks.student(shop.study.classes, shop.study.student).to(shop.study.device)
    schedule = replace(shop.study.schedule, epochs=shop.study.schedule.epochs * job.longer)
    train(model, *arm, job.rate, schedule, job.seed)
    one, several = shop.held_out(job.part)
    judged = (accuracy(model, scenes, shop.study.classes, shop.test_side) for scenes in (one, several))
    return Result(job, *judged)


class Results:
    """The results of a workshop, a line each in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        given = [json.loads(line) for line in lines]
        self.all = [Result(Job(**said.pop("job")), **said) for said in given]

    def add(self, result: Result) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        self.all.append(result)

    def of(self, jobs: Iterable[Job]) -> list[Result]:
        wanted = set(jobs)
        return [result for result in self.all if result.job in wanted]

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        done = {result.job for result in self.all}
        return [job for job in jobs if job not in done]


def run_all(shop: Workshop, jobs: Sequence[Job], processes: int) -> list[Result]:
    """The results of jobs, in no order; those that are not there yet are made."""
    results = Results(shop.root / "results.jsonl")
    missing, start = results.missing(jobs), time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that start now
    pool = ProcessPoolExecutor(processes, get_context("spawn"))
    try:
        waiting = [pool.submit(run_job, shop, job) for job in missing]
        for number, done in enumerate(as_completed(waiting), 1):
            result = done.result()
            results.add(result)
            left = (time.monotonic() - start) / number * (len(missing) - number) / 60
            right = f"{result.one:.1f} % of one object right, {result.several:.1f} of several"
            print(f"{number} of {len(missing)} ({left:.0f} min left): {result.job}: {right}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return results.of(jobs)
