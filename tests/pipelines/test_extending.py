"""More images for a store that is there: what is done stays as it is, and new rows appear all at once."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import changed, contents, stamps, store_contents
from pictures import paint
from runs import SERIAL, Heard

from labelstore import LabelMapReader, PendingRowError, UnknownIdError
from labelstore.errors import StoreMismatchError, StoreWriteError
from labelstore.pipelines import extending
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import LocalSink
from labelstore.pipelines.verifying import verify_store
from labelstore.records import Extent
from labelstore.schema import Status


@pytest.fixture
def store(picture_store, tmp_path) -> Path:
    return Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))


@pytest.fixture
def more(tmp_path) -> Path:
    """A folder of six pictures, of colours that the store has seen and others."""
    for colour, first in (("cyan", 70), ("green", 7)):  # no longer than the ids that the store has
        for number in range(first, first + 3):
            paint(tmp_path / "more" / colour / f"{number}.png", colour)
    return tmp_path / "more"


def extend(images: Path, store: Path, observer: Observer | None = None):
    settings = Settings(model="toy_annotators:colours", top_k=3, encoding="topk")
    return annotate(images, str(store), settings, SERIAL, observer or Observer(), extend=True)


def is_whole(store: Path) -> bool:
    return verify_store(str(store), 1, Observer()).whole


def data_stamps(store: Path) -> dict:
    return {name: stamp for name, stamp in stamps(store).items() if not name.endswith("zarr.json")}


def test_new_images_get_rows_from_the_next_shard_on_and_nothing_else_changes(store, more, picture_store):
    before, heard = data_stamps(store), Heard()
    summary = extend(more, store, heard)
    assert (summary.new_rows, summary.counts.rows, summary.counts.done, summary.counts.pending) == (6, 27, 27, 0)
    assert heard.said == ["new images: 6, for which the store has rows now"]
    reader = LabelMapReader(store)
    assert (len(reader), reader.info.num_images) == (24 + 6, 27)
    assert reader.info.extents == (Extent(0, 21, LabelMapReader(picture_store).info.images_root), Extent(24, 30, str(more)))
    assert reader.status().tolist() == [1] * 21 + [Status.HOLE] * 3 + [1] * 6
    assert not changed(before, {name: stamp for name, stamp in data_stamps(store).items() if name in before})
    assert is_whole(store)


def test_the_labels_are_those_of_a_store_of_the_new_images_alone(make_store, store, more, tmp_path, picture_store):
    extend(more, store)
    make_store(more, tmp_path / "alone.zarr")
    alone, both, before = (LabelMapReader(path) for path in (tmp_path / "alone.zarr", store, picture_store))
    for keys, other in ((list(alone.ids), alone), (list(before.ids), before)):
        for ours, theirs in zip(
            (both.read(keys).classes, both.read(keys).scores), (other.read(keys).classes, other.read(keys).scores), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    names = both.info.target_names
    assert [names[target] for target in both.targets[24:]] == ["cyan"] * 3 + ["green"] * 3
    assert names[:3] == before.info.target_names
    assert both.targets[21:24].tolist() == [-1] * 3


def test_holes_are_no_images(store, more):
    extend(more, store)
    reader = LabelMapReader(store)
    assert reader.ids[21:24] == [""] * 3
    assert "" not in reader
    with pytest.raises(UnknownIdError):
        reader[""]
    with pytest.raises(UnknownIdError):
        reader.read([""])
    with pytest.raises(PendingRowError):
        reader.read([22])
    assert reader.ids.rows(list(reader.ids)[24:]).tolist() == list(range(24, 30))


def test_the_old_and_the_new_images_in_one_folder(store, more, pictures, tmp_path):
    both = Path(shutil.copytree(pictures, tmp_path / "both"))
    shutil.copytree(more, both, dirs_exist_ok=True)
    assert extend(both, store).new_rows == 6
    again = Heard()
    before = stamps(store)
    assert extend(both, store, again).new_rows == 0
    assert not again.said
    assert not changed(before, stamps(store))
    settings = Settings(model="toy_annotators:colours")
    assert annotate(both, str(store), settings, SERIAL, Observer()).new_rows == 0  # no --extend: all have rows by now


def test_without_being_asked_it_refuses_and_says_how(store, more):
    before = stamps(store)
    with pytest.raises(StoreMismatchError, match=r"6 \(.*\) new, 21 \(.*\) gone. Add --extend to add the new ones"):
        annotate(more, str(store), Settings(model="toy_annotators:colours"), SERIAL, Observer())
    assert not changed(before, stamps(store))


def is_as_it_was(reader: LabelMapReader) -> bool:
    """Whether a copy of an open reader, as a worker process gets one that is started later, has the same ids and maps."""
    copy = pickle.loads(pickle.dumps(reader))
    keys = [image_id for image_id in reader.ids if image_id]  # holes have none
    return list(copy.ids) == list(reader.ids) and bool((copy.read(keys).classes == reader.read(keys).classes).all())


def test_longer_ids_go_into_a_new_array_and_the_old_one_stays_until_they_grow_again(store, more, tmp_path):
    deep = tmp_path / "deep"
    more.rename(deep)
    shutil.copytree(deep, deep / "a folder with a long name" / "and another", dirs_exist_ok=True)
    shutil.rmtree(deep / "cyan")
    shutil.rmtree(deep / "green")
    before = LabelMapReader(store)
    extend(deep, store)
    reader = LabelMapReader(store)
    assert reader.info.ids_array == "ids_1"
    assert is_as_it_was(before)
    assert "a folder with a long name/and another/green/7.png" in reader
    assert reader["red/3.png"].classes.shape == (3, 7, 7)
    assert is_whole(store)
    paint(deep / ("x" * 200 + ".png"), "red")
    extend(deep, store)
    assert LabelMapReader(store).info.ids_array == "ids_2"
    assert not (store / "ids").exists()
    assert is_as_it_was(reader)
    assert is_whole(store)


def test_several_extensions(store, tmp_path):
    for number in range(5):
        paint(tmp_path / "more" / f"{number}.png", "blue")
        assert extend(tmp_path / "more", store).new_rows == 1
    reader = LabelMapReader(store)
    assert [extent.start for extent in reader.info.extents] == [0, 24, 28, 32, 36, 40]
    assert reader.info.num_images == 26
    assert [reader.ids.row(f"{number}.png") for number in range(5)] == [24, 28, 32, 36, 40]
    assert is_whole(store)


def test_pending_rows_of_an_earlier_part_wait_for_their_images(store, more):
    (store / "commits" / "c.1.0.0").unlink()
    (store / "commits" / "c.5.0.0").unlink()
    heard = Heard()
    summary = extend(more, store, heard)
    assert (summary.new_rows, summary.counts.done, summary.counts.pending) == (6, 22, 5)
    assert heard.said[-1] == "5 rows stay pending: their images are not among these"


def test_a_pending_last_shard_in_front_of_a_hole_is_made_as_it_would_have_been(
    make_store, store, more, pictures, picture_store, tmp_path
):
    both = Path(shutil.copytree(pictures, tmp_path / "both"))
    (store / "commits" / "c.5.0.0").unlink()
    extend(more, store)
    shutil.copytree(more, both, dirs_exist_ok=True)
    assert annotate(both, str(store), Settings(model="toy_annotators:colours"), SERIAL, Observer()).new_rows == 1
    for name in ("status/c.5", "classes/c.5.0.0.0", "commits/c.5.0.0"):
        assert (store / name).read_bytes() == (picture_store / name).read_bytes()
    assert is_whole(store)


def test_a_reader_that_is_open_goes_on_with_what_it_knows(store, more):
    reader = LabelMapReader(store)
    first = reader.read([0, 20])
    extend(more, store)
    assert len(reader) == 21
    np.testing.assert_array_equal(reader.read([0, 20]).classes, first.classes)
    assert reader.read(list(range(21))).classes.shape == (21, 3, 7, 7)


@pytest.mark.parametrize("writes", range(1, 4))
def test_an_extension_that_is_cut_off_changes_nothing_that_can_be_seen(store, more, pictures, monkeypatch, writes):
    """Cut before each of its writes: ids and targets, the arrays' metadata, the group's."""
    before = store_contents(store)
    plain, calls = LocalSink.put, []

    def cut(self, files):
        calls.append(sorted(files))
        if len(calls) == writes:
            raise OSError(28, "No space left on device")
        plain(self, files)

    monkeypatch.setattr(LocalSink, "put", cut)
    with pytest.raises(StoreWriteError, match="No space left"):
        extend(more, store)
    monkeypatch.undo()
    assert [name.split("/")[-1].split(".")[0] for name in calls[-1]][:1] == [{1: "c", 2: "zarr", 3: "zarr"}[writes]]
    assert (calls[-1] == ["zarr.json"]) == (writes == 3)
    assert len(LabelMapReader(store)) == 21
    assert LabelMapReader(store).read(list(range(21))).classes.shape == (21, 3, 7, 7)
    assert annotate(pictures, str(store), Settings(model="toy_annotators:colours"), SERIAL, Observer()).new_rows == 0
    assert {name: data for name, data in store_contents(store).items() if name in before} == before
    assert store_contents(store).keys() == before.keys()
    assert is_whole(store)


def test_an_extension_that_was_cut_off_is_begun_again_with_other_images(store, more, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(extending, "write_metadata", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StoreWriteError, match="Input/output error"):
            extend(more, store)
    shutil.rmtree(more / "cyan")
    extend(more, store)
    assert LabelMapReader(store).info.num_images == 24
    assert is_whole(store)


def test_a_full_table_of_settings_is_still_held_against_the_store(store, more):
    with pytest.raises(StoreMismatchError, match=r"--top-k 5 \(the store has 3\)"):
        annotate(more, str(store), Settings(top_k=5), SERIAL, Observer(), extend=True)


def test_extending_what_is_not_there_makes_a_store(more, tmp_path):
    summary = extend(more, tmp_path / "new.zarr")
    assert (summary.new_rows, summary.info.extents) == (6, ())


def test_attributes_that_others_have_added_are_kept(store, more):
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["mine"] = {"note": "é"}
    (store / "zarr.json").write_text(json.dumps(root))
    extend(more, store)
    assert json.loads((store / "zarr.json").read_text())["attributes"]["mine"] == {"note": "é"}
    assert is_whole(store)
    assert contents(store)["zarr.json"]
