"""What a run uses of a cluster's workers, and which of them it refuses. The workers' own answers are in tests/cli."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from labelstore import LabelStoreError
from labelstore.errors import OptionError, RunError
from labelstore.pipelines.annotators.spec import AnnotatorSpec, EnsembleSpec
from labelstore.pipelines.marks import Mark
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.preflight import Answer, look_at_workers, require_versions
from labelstore.pipelines.resources import ClusterAddress, WorkerFacts, resources_elsewhere, settle
from labelstore.pipelines.versions import shared_versions

ASKED = resources_elsewhere(ClusterAddress("tcp://10.0.0.1:8786"), "auto", None)
GPU, CPU = WorkerFacts("a", 16, ("uuid-1",)), WorkerFacts("b", 16, ())


class Listening(Observer):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warning(self, text: str) -> None:
        self.heard.append(text)


class Said:
    """Workers that answer as they are told."""

    def __init__(self, **facts: WorkerFacts) -> None:
        self.facts, self.versions_of, self.late, self.raising = facts, dict.fromkeys(facts, shared_versions()), 0.0, {}

    def versions(self, packages):
        assert packages == tuple(shared_versions())
        return self.versions_of

    def ask_all(self, function, spec):
        answers = {name: Answer(facts, time.time() - self.late, Mark("mark.partial")) for name, facts in self.facts.items()}
        return answers | self.raising


def look(workers: Said, tmp_path, observer: Observer | None = None):
    spec = EnsembleSpec((AnnotatorSpec("toy_annotators:colours"),))
    (tmp_path / "labels.zarr").mkdir(exist_ok=True)
    try:
        return look_at_workers(workers, spec, str(tmp_path / "labels.zarr"), (), ASKED, observer or Observer())
    finally:
        assert not list((tmp_path / "labels.zarr").iterdir()), "the mark is gone"


@pytest.mark.parametrize(
    ("facts", "device", "threads", "batch"),
    [
        ({"one": CPU}, "cpu", 16, 16),
        ({"one": CPU, "two": CPU}, "cpu", 8, 16),
        ({"one": CPU, "two": replace(CPU, host="c", cores=4)}, "cpu", 4, 16),
        ({str(number): CPU for number in range(16)}, "cpu", 2, 16),
        ({"one": replace(CPU, cores=1)}, "cpu", 1, 8),
        ({"one": GPU, "two": replace(GPU, gpus=("uuid-2",))}, "cuda", 8, 64),
    ],
)
def test_all_workers_work_alike(tmp_path, facts, device, threads, batch):
    found = look(Said(**facts), tmp_path)
    assert (found.device, found.threads, found.batch_size, found.workers) == (device, threads, batch, len(facts))
    assert found.cluster == ASKED.cluster


def test_devices_that_differ_are_refused():
    both = {"tcp://one": GPU, "tcp://two": CPU}
    with pytest.raises(
        OptionError, match=r"1 of 2 workers have no CUDA device that they can use \(tcp://two\), the others have"
    ):
        settle(ASKED, both)
    with pytest.raises(OptionError, match=r"--device cuda: 1 of 2 workers have no CUDA device"):
        settle(replace(ASKED, device="cuda"), both)
    assert settle(replace(ASKED, device="cpu"), both).device == "cpu"
    assert settle(replace(ASKED, batch_size=5), {"one": GPU}).batch_size == 5


def test_two_workers_on_one_gpu_are_told_of(tmp_path):
    observer = Listening()
    look(Said(one=GPU, two=GPU, three=replace(GPU, host="elsewhere")), tmp_path, observer)
    assert observer.heard == [
        "one and two use the same CUDA device; start one worker for each, with its own CUDA_VISIBLE_DEVICES"
    ]


def test_problems_are_told_together(tmp_path):
    many = Said(**{f"w{number}": CPU for number in range(6)})
    many.versions_of = many.versions_of | {f"w{number}": {**shared_versions(), "torch": "0.1"} for number in range(4)}
    with pytest.raises(
        RunError, match=r"4 of 6 workers have other versions. w0, w1, w2 and 1 more: has torch 0.1 \(here: .*begun$"
    ):
        look(many, tmp_path)
    missing = Said(one=CPU)
    missing.versions_of = {"one": {**shared_versions(), "zarr": None}}
    with pytest.raises(RunError, match=r"one: has no zarr \(here: "):
        look(missing, tmp_path)
    failing = Said(one=CPU, two=CPU)
    failing.raising = {"two": ModuleNotFoundError("No module named 'labelstore'")}
    with pytest.raises(RunError, match="1 of 2 workers cannot do the work. two: No module named 'labelstore'"):
        look(failing, tmp_path)
    late = Said(one=CPU)
    late.late = 1000.0
    with pytest.raises(RunError, match=r"one: has a clock that is 1000 s off: set it right"):
        look(late, tmp_path)
    with pytest.raises(RunError, match="all workers have left"):
        look(Said(), tmp_path)


def test_a_worker_that_joins_later_must_fit():
    require_versions(shared_versions())
    with pytest.raises(LabelStoreError, match=r"has torch .* \(here: 0.1\). What is committed is kept"):
        require_versions({**shared_versions(), "torch": "0.1"})
