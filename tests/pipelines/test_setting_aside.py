"""Finding the images that end their worker, with an engine that only says what would have died."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
from folders import changed, stamps, store_contents
from hypothesis import given
from hypothesis import strategies as st
from pictures import paint
from runs import Heard

from labelstore import LabelMapReader
from labelstore.errors import RunError
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import JobSpec, ShardSpec, TaskSpec, trial_of, trial_without_images
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.setting_aside import MOST_GUILTY, Suspects, WorkerDiedError, find_guilty, survivors
from labelstore.pipelines.shard import annotate_shards
from labelstore.pipelines.sources.places import BlackPlace, ExcludedPlace, FilePlace
from labelstore.schema import Status

HOW = "ended the worker process"
REASON = "annotating it ended the worker process, twice"


class Alone:
    """Runs functions here, unless one of the images in hand is poison, or it is one of the calls that die by chance."""

    def __init__(self, *poison: str, chance: Container[int] = ()) -> None:
        self.poison = poison
        self.chance = chance
        self.calls = 0

    def __call__(self, function: Any, spec: Any) -> Any:
        self.calls += 1
        places = spec.places if hasattr(spec, "places") else [place for shard in spec.shards for place in shard.places]
        if self.calls in self.chance:
            raise WorkerDiedError(HOW)
        if any(str(place).endswith(self.poison) for place in places if self.poison):
            raise WorkerDiedError(HOW)
        found = function(spec)
        return found if found is None else list(found)


def task_of(store: Path, images: Path, batch_size: int = 2) -> TaskSpec:
    """A task of all shards of a store."""
    reader = LabelMapReader(store)
    annotators = recorded_annotators(str(store), reader.info, (reader.annotator.name,))
    job = JobSpec("run", str(store), annotators, batch_size, "cpu", 1, 1)
    places = [FilePlace(f"{images}/{image_id}") for image_id in reader.ids]
    rows = map(reader.info.shard_rows, range(reader.info.num_shards))
    return TaskSpec(job, tuple(ShardSpec(shard, tuple(places[row] for row in some)) for shard, some in enumerate(rows)))


def uncommit(store: Path, *shards: int) -> None:
    for shard in shards:
        (store / "commits" / f"c.{shard}.0.0").unlink()


@given(st.integers(1, 70), st.data())
def test_all_guilty_rows_are_found_and_no_others(count, data):
    guilty = data.draw(st.sets(st.integers(0, count - 1)))
    trials = []

    def kills(rows: range) -> str:
        trials.append(rows)
        return HOW if guilty & set(rows) else ""

    assert find_guilty(range(count), kills) == dict.fromkeys(sorted(guilty), HOW)
    assert len(trials) <= 2 * max(len(guilty), 1) * count.bit_length() + 2


def test_what_dies_once_by_chance_is_not_guilty():
    deaths = iter([HOW, HOW, "", ""])  # the first half, its first row; and not again
    assert find_guilty(range(4), lambda rows: next(deaths, "")) == {}


def test_survivors_are_the_places_that_kill_nobody():
    assert survivors("abcdefg", lambda some: HOW if {"b", "g"} & set(some) else "") == tuple("acdef")
    assert survivors("", lambda some: HOW) == ()


def test_a_trial_has_its_rows_in_the_batches_of_the_shard():
    spec = ShardSpec(3, tuple(FilePlace(str(row)) for row in range(10)))
    job = JobSpec("run", "store", EnsembleSpec(()), 4, "cpu", 1, 1)
    found = trial_of(job, spec, range(5, 9)).places
    assert [str(place) if isinstance(place, FilePlace) else "" for place in found] == ["", "5", "6", "7", "8", ""]
    for rows, expected in ((10, 6), (8, 4), (3, 3), (4, 4)):
        black = trial_without_images(job, ShardSpec(3, spec.places[:rows])).places
        assert len(black) == expected
        assert all(isinstance(place, ExcludedPlace) for place in black)


def test_shards_that_are_committed_by_now_are_reported_and_not_made_again(pictures, make_store, tmp_path):
    store, images = tmp_path / "labels.zarr", tmp_path / "images"
    for number in range(12):
        paint(images / f"{number:02}.png", "red")
    (images / "05.png").write_bytes(b"no image")
    make_store(images, store)
    task, before = task_of(store, images), stamps(store)
    reports = list(annotate_shards(task))
    assert not changed(before, stamps(store))
    assert [(report.shard, report.rows) for report in reports] == [(0, 4), (1, 4), (2, 4)]
    assert [report.failures for report in reports] == [(), (("05.png", "cannot be decoded: cannot identify image file"),), ()]
    uncommit(store, 1)
    (store / "scores" / "c.2.0.0.0").write_bytes(b"damaged")
    assert [report.shard for report in annotate_shards(task)] == [0, 1, 2]
    written = {name.rpartition("/c.")[2].partition(".")[0] for name in changed(before, stamps(store)) if "/c." in name}
    assert written == {"1", "2"}


def test_guilty_images_fail_and_the_rest_of_the_shard_gets_its_bytes(pictures, make_store, tmp_path):
    store = tmp_path / "labels.zarr"
    make_store(pictures, store, shard_size=8)
    before = LabelMapReader(store).read(list(range(21)))
    uncommit(store, 0, 1)
    heard, alone = Heard(), Alone("blue/2.png", "blue/5.png", "green/3.png")
    reports = list(Suspects(alone, heard).finish(task_of(store, pictures, batch_size=4)))
    assert [failure for report in reports for failure in report.failures] == [
        ("blue/2.png", REASON),
        ("blue/5.png", REASON),
        ("green/3.png", REASON),
    ]
    assert heard.warnings == [f"{name}: {REASON}: marked as failed" for name in alone.poison]
    reader = LabelMapReader(store)
    assert (reader.status() == Status.FAILED).nonzero()[0].tolist() == [2, 5, 10]
    assert reader.error("blue/5.png") == REASON
    rest = (reader.status() == Status.DONE).nonzero()[0]
    after = reader.read(rest)
    assert (after.scores == before.scores[rest]).all()
    assert (after.classes == before.classes[rest]).all()


def test_a_death_by_chance_makes_no_image_fail(pictures, make_store, tmp_path):
    store = tmp_path / "labels.zarr"
    make_store(pictures, store)
    before = store_contents(store)
    task = task_of(store, pictures)
    only = TaskSpec(task.job, task.shards[1:2])
    for chance in ({1}, {1, 2}, {1, 3, 4}, {1, 3, 4, 7}):  # the shard; a trial without images; half of it and a row of that
        uncommit(store, 1)
        reports = list(Suspects(Alone(chance=chance), Observer()).finish(only))
        assert not any(report.failures for report in reports)
        assert store_contents(store) == before


def test_an_annotator_that_kills_without_images_is_said_to_be_at_fault(pictures, make_store, tmp_path):
    make_store(pictures, tmp_path / "labels.zarr")
    uncommit(tmp_path / "labels.zarr", 1)
    alone = Alone(chance=range(1000))
    with pytest.raises(RunError, match=r"ended the worker process on a black image as well.*--batch-size"):
        list(Suspects(alone, Observer()).finish(task_of(tmp_path / "labels.zarr", pictures)))
    assert alone.calls == 3


def test_images_that_kill_only_together_end_the_run(pictures, make_store, tmp_path):
    make_store(pictures, tmp_path / "labels.zarr")
    uncommit(tmp_path / "labels.zarr", 0)

    class Together(Alone):
        def __call__(self, function: Any, spec: Any) -> Any:
            if isinstance(spec, TaskSpec) and spec.shards[0].shard == 0:
                raise WorkerDiedError(HOW)
            return super().__call__(function, spec)

    with pytest.raises(RunError, match=r"shard 0 has ended its worker process 3 times .* none of its images .*--batch-size"):
        list(Suspects(Together(), Observer()).finish(task_of(tmp_path / "labels.zarr", pictures)))


def test_too_many_guilty_images_end_the_run(pictures, make_store, tmp_path):
    make_store(pictures, tmp_path / "labels.zarr", shard_size=8)
    uncommit(tmp_path / "labels.zarr", 0, 1, 2)
    with pytest.raises(RunError, match=rf"21 images of this run end .*red/2\.png.* more than {MOST_GUILTY}"):
        list(Suspects(Alone(".png"), Observer()).finish(task_of(tmp_path / "labels.zarr", pictures)))
    assert (LabelMapReader(tmp_path / "labels.zarr").status() == Status.FAILED).sum() == 16


def test_a_black_place_is_an_image_and_an_excluded_one_is_none():
    assert BlackPlace().read().startswith(b"P6 1 1 255\n")
    assert str(ExcludedPlace("why")) == "why"
