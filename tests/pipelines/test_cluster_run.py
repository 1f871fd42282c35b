"""Runs on a real Dask cluster: the same bytes as in this process, and what happens when workers die."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import unruly_annotators
from folders import changed, contents, stamps, store_contents
from pictures import paint
from PIL import Image
from runs import Heard

from labelstore import LabelMapReader
from labelstore import threads as threads_module
from labelstore.errors import OptionError, RunError
from labelstore.pipelines import plan
from labelstore.pipelines.annotate import Summary, annotate
from labelstore.pipelines.cluster import local_cluster
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import SPIN_BRIEFLY, SPIN_NEVER, Resources, plan_resources
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.settings import Settings
from labelstore.threads import usable_cores

COLOURS = Settings(model="toy_annotators:colours", encoding="topk", top_k=3)
DEADLY = Settings(model="unruly_annotators:deadly", top_k=3)
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "china.jpg", "flower.jpg")


def run(images: Path, store: Path, settings: Settings, workers: int, observer: Observer | None = None) -> Summary:
    resources = Resources(workers, device="cpu", threads=1, decode_threads=2, batch_size=4)
    return annotate(images, str(store), settings, resources, observer or Observer())


def test_two_processes_write_the_bytes_that_one_writes(pictures, picture_store, tmp_path):
    heard = Heard()
    summary = run(pictures, tmp_path / "cluster.zarr", COLOURS, 2, heard)
    assert (summary.new_rows, summary.counts.done) == (21, 21)
    assert store_contents(tmp_path / "cluster.zarr") == store_contents(picture_store)
    assert heard.counts[-1] == (21, 0)
    assert [url.startswith("http://127.0.0.1:") for url in heard.dashboards] == [True]


def test_the_real_model_writes_the_same_bytes_on_a_cluster(tmp_path):
    samples, images = copy_samples(tmp_path / "samples"), tmp_path / "images"
    images.mkdir()
    for name in PHOTOS:
        Image.open(samples / name).convert("RGB").resize((160, 120)).save(images / Path(name).with_suffix(".png"))
    run(images, tmp_path / "serial.zarr", Settings(), 0)
    run(images, tmp_path / "cluster.zarr", Settings(), 2)
    assert store_contents(tmp_path / "cluster.zarr") == store_contents(tmp_path / "serial.zarr")


def test_the_client_forgets_tasks_that_are_done(tmp_path, monkeypatch):
    """Dask keeps the last messages of every connection, a thousand by default, and with them what tasks are about."""
    monkeypatch.setitem(plan.MOST_ROWS_A_TASK, "cpu", 4)
    picture = paint(tmp_path / "images" / "0.png", "red")
    for number in range(1, 320):
        picture.with_name(f"{number}.png").hardlink_to(picture)
    alive = []

    class Counting(Observer):
        def rows(self, done, failed):
            if done == 320:
                gc.collect()
                alive.append(sum(type(thing) is plan.TaskSpec for thing in gc.get_objects()))

    settings = Settings(model="toy_annotators:colours", encoding="topk", top_k=3, shard_size=4)
    assert run(tmp_path / "images", tmp_path / "labels.zarr", settings, 1, Counting()).new_rows == 320
    assert 0 < alive[-1] < 40  # of 80


def test_nothing_to_do_starts_no_cluster(pictures, picture_store):
    heard, before = Heard(), stamps(picture_store)
    assert run(pictures, picture_store, COLOURS, 2, heard).new_rows == 0
    assert not heard.dashboards
    assert not changed(before, stamps(picture_store))


def test_an_error_on_a_worker_arrives_as_what_it_is(pictures, tmp_path):
    with pytest.raises(OptionError, match=r"--top-k 9: expected at most 8"):
        run(pictures, tmp_path / "labels.zarr", Settings(model="toy_annotators:colours", top_k=9), 1)
    assert not (tmp_path / "labels.zarr").exists()


def deaths(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next so many batches kill their worker."""
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).touch()
    monkeypatch.setenv(unruly_annotators.DEATHS, str(folder))


def test_a_worker_that_dies_costs_its_shard_once_more_and_no_row(pictures, tmp_path, monkeypatch):
    run(pictures, tmp_path / "calm.zarr", DEADLY, 0)
    deaths(tmp_path / "deaths", 1, monkeypatch)
    heard = Heard()
    summary = run(pictures, tmp_path / "labels.zarr", DEADLY, 1, heard)
    assert not list((tmp_path / "deaths").iterdir())
    assert (summary.counts.done, summary.counts.failed, summary.counts.pending) == (21, 0, 0)
    assert store_contents(tmp_path / "labels.zarr") == store_contents(tmp_path / "calm.zarr")
    assert heard.counts[-1] == (21, 0)


@pytest.mark.slow
def test_an_annotator_that_kills_every_worker_ends_the_run_in_words(pictures, tmp_path, monkeypatch):
    run(pictures, tmp_path / "labels.zarr", DEADLY, 0)
    before = contents(tmp_path / "labels.zarr")
    for shard in (1, 4):
        (tmp_path / "labels.zarr" / "commits" / f"c.{shard}.0.0").unlink()
    deaths(tmp_path / "deaths", 20, monkeypatch)
    with pytest.raises(RunError, match=r"the annotator ended the worker process on a black image as well.*--batch-size"):
        run(pictures, tmp_path / "labels.zarr", DEADLY, 1)
    assert (LabelMapReader(tmp_path / "labels.zarr").status() == 1).sum() == 21 - 8
    monkeypatch.delenv(unruly_annotators.DEATHS)
    assert run(pictures, tmp_path / "labels.zarr", DEADLY, 0).new_rows == 8
    assert contents(tmp_path / "labels.zarr") == before


def variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX")}


def test_every_cluster_has_its_own_settings_and_leaves_none_behind(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")  # the user's own is kept
    before, cores = os.environ.copy(), usable_cores()
    for workers, threads in ((1, 1), (1, cores + 1)):
        resources = Resources(workers, "cpu", threads, 1, 1)
        with local_cluster(resources) as client:
            (found,) = client.run(variables).values()
        spin = {"GOMP_SPINCOUNT": str((SPIN_NEVER if threads > cores else SPIN_BRIEFLY)["GOMP_SPINCOUNT"])}
        assert found == {**spin, "OMP_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "3"}
        assert os.environ == before


def test_resources_are_shared_out_among_the_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(threads_module, "_CGROUPS", Path("/nowhere"))
    for workers, count, threads in ((None, 3, 4), (1, 1, 12), (5, 5, 2), (24, 24, 2), (0, 0, 12)):
        planned = plan_resources(workers, "cpu", 32)
        assert (planned.workers, planned.threads, planned.device, planned.batch_size) == (count, threads, "cpu", 32)
        assert planned.decode_threads == threads
        assert plan_resources(workers, "cpu", None).batch_size == min(8 * threads, 16)
