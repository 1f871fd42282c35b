"""`--retry-failed`: the shards of failed images once more, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from folders import changed, stamps, store_contents
from pictures import paint
from runs import SERIAL

from labelstore import FailedRowError, LabelMapReader, PendingRowError
from labelstore.pipelines.annotate import ANNOTATING, annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import LocalSink

BROKEN = ("red/1.png", "red/6.png")


@pytest.fixture
def images(tmp_path) -> Path:
    """Twelve images in three shards; one in the first and one in the second cannot be decoded."""
    for number in range(12):
        paint(tmp_path / "images" / "red" / f"{number:x}.png", "red")
    for name in BROKEN:
        (tmp_path / "images" / name).write_bytes(b"no image")
    return tmp_path / "images"


def run(images: Path, store: Path, retry: bool = False):
    settings = Settings(model="toy_annotators:colours", top_k=3)
    return annotate(images, str(store), settings, SERIAL, Observer(), retry_failed=retry)


def test_failed_rows_are_made_again_with_the_rest_of_their_shards(images, tmp_path):
    store = tmp_path / "labels.zarr"
    assert run(images, store).counts.failed == 2
    before = stamps(store)
    paint(images / BROKEN[0], "blue")
    assert run(images, store).new_rows == 0
    summary = run(images, store, retry=True)
    assert (summary.new_rows, summary.counts.done, summary.counts.failed) == (8, 11, 1)
    touched = {name.split("/")[-1].split(".")[1] for name in changed(before, stamps(store))}
    assert touched == {"0", "1"}
    reader = LabelMapReader(store)
    assert reader[BROKEN[0]].classes.shape == (3, 7, 7)
    with pytest.raises(FailedRowError):
        reader[BROKEN[1]]


def test_the_store_is_that_of_a_run_in_which_nothing_failed(images, tmp_path):
    run(images, tmp_path / "labels.zarr")
    for name in BROKEN:
        paint(images / name, "blue")
    run(images, tmp_path / "labels.zarr", retry=True)
    run(images, tmp_path / "calm.zarr")
    ours, calm = store_contents(tmp_path / "labels.zarr"), store_contents(tmp_path / "calm.zarr")
    assert {name: data for name, data in ours.items() if not name.endswith("zarr.json")} == {
        name: data
        for name, data in calm.items()
        if not name.endswith("zarr.json")  # the distance was measured without two
    }


def test_without_failed_rows_there_is_nothing_to_do(images, tmp_path):
    for name in BROKEN:
        paint(images / name, "blue")
    run(images, tmp_path / "labels.zarr")
    before = stamps(tmp_path / "labels.zarr")
    assert run(images, tmp_path / "labels.zarr", retry=True).new_rows == 0
    assert not changed(before, stamps(tmp_path / "labels.zarr"))


def noted(name: str, events: list):
    plain = getattr(LocalSink, name)

    def call(self, keys):
        events.append((name, sorted([keys] if isinstance(keys, str) else keys)))
        return plain(self, keys)

    return call


def test_commits_go_durably_before_anything_is_made_again(images, tmp_path, monkeypatch):
    store, events = tmp_path / "labels.zarr", []
    run(images, store)
    for name in ("delete", "flush", "put"):
        monkeypatch.setattr(LocalSink, name, noted(name, events))
    run(images, store, retry=True)
    commits = [f"commits/c.{shard}.0.0" for shard in (0, 1)]
    assert events[:4] == [(name, [commit]) for commit in commits for name in ("delete", "flush")]
    assert events[4][0] == "delete"  # the writer makes sure of it once more
    assert [name for name, _ in events].index("put") > 4


def interrupted(*_):
    raise KeyboardInterrupt


def test_interrupted_between_it_goes_on_like_any_other_run(images, tmp_path, monkeypatch):
    store = tmp_path / "labels.zarr"
    run(images, store)
    for name in BROKEN:
        paint(images / name, "blue")
    with monkeypatch.context() as patch:
        patch.setattr("labelstore.pipelines.annotate.ANNOTATING", replace(ANNOTATING, finish=interrupted))
        with pytest.raises(KeyboardInterrupt):
            run(images, store, retry=True)
    with pytest.raises(PendingRowError):
        LabelMapReader(store)[BROKEN[0]]
    assert run(images, store).new_rows == 8
    assert run(images, store).counts.failed == 0
