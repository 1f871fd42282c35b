"""Images that end or hang the worker that annotates them, on real clusters: they fail, all others are done."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from folders import store_contents
from pictures import paint
from runs import Heard

from labelstore import LabelMapReader
from labelstore.errors import RunError
from labelstore.pipelines.annotate import Summary, annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import Settings

ALLERGIC = Settings(model="unruly_annotators:allergic", top_k=3, encoding="topk")
ENDED = "annotating it ended the worker process, twice"
HUNG = "annotating it did not finish within 3 s, twice"


def run(
    images: Path, store: Path, workers: int, observer: Observer | None = None, timeout: float = 600, shard_size: int = 4
) -> Summary:
    resources = Resources(workers, device="cpu", threads=1, decode_threads=2, batch_size=4, worker_timeout=timeout)
    settings = replace(ALLERGIC, shard_size=shard_size)
    return annotate(images, str(store), settings, resources, observer or Observer())


@pytest.fixture
def images(pictures, tmp_path) -> Path:
    return shutil.copytree(pictures, tmp_path / "images")


def rows_but(store: Path, *failed: str) -> dict[str, bytes]:
    """Everything in a store but why rows failed, and what seals that."""
    assert {image_id: LabelMapReader(store).error(image_id) != "" for image_id in failed} == dict.fromkeys(failed, True)
    return {name: data for name, data in store_contents(store).items() if not name.startswith(("errors/c.", "commits/c."))}


def undisturbed(images: Path, store: Path, *failed: str, shard_size: int = 4) -> dict[str, bytes]:
    """The same of a run in which these images are empty files, which fail for a reason of their own."""
    for image_id in failed:
        (images / image_id).write_bytes(b"")
    run(images, store, 0, shard_size=shard_size)
    return rows_but(store, *failed)


@pytest.mark.parametrize(
    ("shard_size", "task"), [(1, "shards 0 to 7: "), pytest.param(4, "shards 0 to 1: ", marks=pytest.mark.slow)]
)
def test_an_image_that_kills_its_worker_fails_and_all_others_are_done(images, tmp_path, shard_size, task):
    paint(images / "blue" / "5.png", "magenta")
    heard = Heard()
    summary = run(images, tmp_path / "labels.zarr", 2, heard, shard_size=shard_size)
    assert summary.failures == (("blue/5.png", ENDED),)
    assert (summary.counts.done, summary.counts.pending) == (20, 0)
    assert heard.counts[-1] == (20, 1)
    aside = [text for text in heard.warnings if text.endswith("annotating ended the worker process 3 times: set aside")]
    assert any(text.startswith(task) for text in aside)
    assert heard.warnings[len(aside) :] == [f"blue/5.png: {ENDED}: marked as failed"]
    found = rows_but(tmp_path / "labels.zarr", "blue/5.png")
    assert found == undisturbed(images, tmp_path / "calm.zarr", "blue/5.png", shard_size=shard_size)


@pytest.mark.slow
def test_several_such_images_in_a_shard_and_one_worker(images, tmp_path):
    guilty = ("blue/4.png", "blue/6.png", "green/0.png")  # all of one shard; green/6 is of another
    for image_id in (*guilty, "green/6.png"):
        paint(images / image_id, "magenta")
    summary = run(images, tmp_path / "labels.zarr", 1)
    assert summary.failures == tuple((image_id, ENDED) for image_id in (*guilty, "green/6.png"))
    assert (summary.counts.done, summary.counts.pending) == (17, 0)
    found = rows_but(tmp_path / "labels.zarr", *guilty, "green/6.png")
    assert found == undisturbed(images, tmp_path / "calm.zarr", *guilty, "green/6.png")


@pytest.mark.slow
def test_such_an_image_among_those_that_the_annotator_is_tried_on(images, tmp_path):
    paint(images / "blue" / "0.png", "magenta")
    summary = run(images, tmp_path / "labels.zarr", 2)
    assert summary.failures == (("blue/0.png", ENDED),)
    assert summary.info.distance.images == 7
    assert rows_but(tmp_path / "labels.zarr", "blue/0.png") == undisturbed(images, tmp_path / "calm.zarr", "blue/0.png")


@pytest.mark.slow
def test_an_image_that_hangs_its_worker_fails_after_the_timeout(images, tmp_path):
    paint(images / "blue" / "5.png", "cyan")
    heard = Heard()
    summary = run(images, tmp_path / "labels.zarr", 2, heard, timeout=3)
    assert summary.failures == (("blue/5.png", HUNG),)
    assert (summary.counts.done, summary.counts.pending) == (20, 0)
    assert "shards 0 to 1: annotating did not finish within 3 s, 3 times: set aside" in heard.warnings
    assert rows_but(tmp_path / "labels.zarr", "blue/5.png") == undisturbed(images, tmp_path / "calm.zarr", "blue/5.png")


@pytest.mark.slow
def test_a_new_store_for_an_annotator_that_always_kills_is_refused_in_words(images, tmp_path):
    resources = Resources(2, device="cpu", threads=1, decode_threads=2, batch_size=4)
    hopeless = Settings(model="unruly_annotators:hopeless", top_k=3)
    with pytest.raises(RunError, match=r"the annotator ended the worker process on a black image as well.*--model or --device"):
        annotate(images, str(tmp_path / "labels.zarr"), hopeless, resources, Observer())
    assert not (tmp_path / "labels.zarr").exists()
