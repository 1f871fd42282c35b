"""`annotate` from a folder to soft labels: what is made, what is made again, what fails, and that boxes mean what they say."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import HALF, changed, contents, edit_attributes, stamps, store_contents
from pictures import draw, paint
from PIL import Image
from runs import SERIAL, Heard
from toy_annotators import NAMES

from labelstore import FailedRowError, LabelMapReader
from labelstore.errors import AnnotatorError, FormatError, ImagesError, OptionError, StoreMismatchError, StoreWriteError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer, Observers
from labelstore.pipelines.plan import ShardReport
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.settings import Settings, new_store_info
from labelstore.pipelines.tally import Tally
from labelstore.schema import UNFINISHED, Status

WHOLE = (0.0, 0.0, 1.0, 1.0)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
TOP, BOTTOM = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)


def colours_of(store: Path, image_id: str, boxes) -> list[str]:
    reader = LabelMapReader(store)
    return [reader.class_names[best] for best in reader.pool([image_id] * len(boxes), boxes).argmax(axis=1)]


@pytest.fixture
def store(pictures, picture_store, tmp_path) -> Path:
    """A copy of a finished store of 21 pictures in six shards of four."""
    return Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))


# What a run makes


def test_every_picture_gets_the_label_of_its_colour(make_store, pictures, tmp_path):
    summary = make_store(pictures)
    assert (summary.counts.rows, summary.counts.done, summary.counts.failed, summary.counts.pending) == (21, 21, 0, 0)
    assert (summary.new_rows, summary.failures, summary.example_id) == (21, (), "blue/0.png")
    reader = LabelMapReader(tmp_path / "labels.zarr")
    for image_id in ("red/0.png", "red/1.png", "red/2.png", "blue/1.png", "blue/2.png"):
        assert colours_of(tmp_path / "labels.zarr", image_id, [WHOLE]) == [image_id.split("/")[0]]
    assert colours_of(tmp_path / "labels.zarr", "blue/0.png", [LEFT, RIGHT]) == ["blue", "yellow"]
    for name in reader.ids:
        assert reader.image_crc32(name) == zlib.crc32((pictures / name).read_bytes())
    assert reader.info.images_root == str(pictures)


@pytest.mark.parametrize(("exif", "turned"), [("ignore", [30, 20]), ("apply", [20, 30])])
def test_images_sizes_are_kept_as_the_annotator_saw_them(make_store, tmp_path, exif, turned):
    sideways = Image.Exif()
    sideways[0x0112] = 6
    images = tmp_path / "images"
    paint(images / "a.png", "red", size=(7, 50))
    draw("red", size=(30, 20)).save(images / "b.jpg", exif=sideways)
    (images / "c.jpg").write_bytes((images / "b.jpg").read_bytes()[:200])
    draw("red", size=(30, 20)).convert("L").save(images / "d.gif")
    reader = LabelMapReader(make_store(images, exif=exif).store)
    assert reader.status().tolist() == [1, 1, 2, 1]
    assert reader.image_size(reader.ids).tolist() == [[7, 50], turned, [0, 0], [30, 20]]


def test_a_store_without_sizes_goes_on_without(make_store, pictures, tmp_path, monkeypatch):
    older = "labelstore.pipelines.annotate.new_store_info"
    monkeypatch.setattr(older, lambda *given: replace(new_store_info(*given), image_sizes=False))
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    make_store(images)
    monkeypatch.undo()
    paint(images / "red" / "new.png", "red")
    options = Settings(model="toy_annotators:colours", top_k=3, encoding="topk")
    summary = annotate(images, str(tmp_path / "labels.zarr"), options, SERIAL, Observer(), extend=True)
    assert (summary.counts.done, LabelMapReader(summary.store).info.image_sizes) == (22, False)
    assert not (tmp_path / "labels.zarr" / "image_size").exists()


def test_an_observer_hears_the_plan_and_every_row(pictures, tmp_path):
    heard = Heard()
    annotate(pictures, str(tmp_path / "s.zarr"), Settings(model="toy_annotators:colours", top_k=3), SERIAL, heard)
    assert heard.plans == [(21, 0)]
    assert heard.counts[-1] == (21, 0)
    assert heard.counts == sorted(heard.counts)
    assert not heard.warnings


def test_the_batch_size_changes_no_label(make_store, pictures, tmp_path):
    make_store(pictures)
    one_by_one = Resources(workers=0, device="cpu", threads=1, decode_threads=1, batch_size=1)
    annotate(
        pictures, str(tmp_path / "1.zarr"), Settings("toy_annotators:colours", encoding="topk", top_k=3), one_by_one, Observer()
    )
    one, other = (LabelMapReader(tmp_path / name) for name in ("labels.zarr", "1.zarr"))
    boxes = np.tile(WHOLE, (21, 1))
    np.testing.assert_allclose(one.pool(one.ids, boxes), other.pool(one.ids, boxes), atol=2e-3)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_last_shard_may_be_short(make_store, tmp_path, count):
    for number in range(count):
        paint(tmp_path / "images" / f"{number}.png", NAMES[number])
    assert make_store(tmp_path / "images").counts.done == count
    for number in range(count):
        assert colours_of(tmp_path / "labels.zarr", f"{number}.png", [WHOLE]) == [NAMES[number]]


def test_strange_names_are_found_again(make_store, tmp_path):
    names = {
        "a b/c d.e.png": "red",
        "x.hidden/x.png": "green",
        "é/ü.PNG": "blue",
        "漢字/🐈.png": "yellow",
        "[x]/:cat:.png": "cyan",
        "new\nline/-x.png": "white",
        "deep/" * 20 + "x.png": "magenta",
        "%20/#?&'\".png": "black",
        "café/nfd.png": "red",
    }
    for name, colour in names.items():
        path = paint(tmp_path / "images" / "temporary.png", colour)
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "images" / name)
    make_store(tmp_path / "images")
    reader = LabelMapReader(tmp_path / "labels.zarr")
    assert list(reader.ids) == sorted(names, key=str.encode)
    for name, colour in names.items():
        assert colours_of(tmp_path / "labels.zarr", name, [WHOLE]) == [colour]


def test_folders_are_recorded_as_targets(picture_store):
    reader = LabelMapReader(picture_store)
    assert reader.info.target_names == ("blue", "green", "red")
    assert [reader.info.target_names[target] for target in reader.targets] == [name.split("/")[0] for name in reader.ids]


# Boxes


@pytest.mark.parametrize("size", [(120, 40), (40, 120), (50, 50)])
def test_top_and_bottom_are_not_left_and_right(make_store, tmp_path, size):
    paint(tmp_path / "images" / "stacked.png", "red", "blue", size, stacked=True)
    paint(tmp_path / "images" / "beside.png", "green", "yellow", size)
    make_store(tmp_path / "images")
    store = tmp_path / "labels.zarr"
    boxes = [TOP, BOTTOM, (0.0, 0.0, 0.2, 0.4), (0.8, 0.0, 1.0, 0.4), (0.0, 0.6, 0.2, 1.0)]
    assert colours_of(store, "stacked.png", boxes) == ["red", "blue", "red", "red", "blue"]
    boxes = [LEFT, RIGHT, (0.0, 0.0, 0.4, 0.2), (0.0, 0.8, 0.4, 1.0), (0.6, 0.0, 1.0, 0.2)]
    assert colours_of(store, "beside.png", boxes) == ["green", "yellow", "green", "green", "yellow"]


def test_exif_rotation_is_recorded_and_boxes_follow_it(make_store, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is stored on the left is seen at the top
    (tmp_path / "images").mkdir()
    draw("red", "blue").save(tmp_path / "images" / "x.png", exif=exif)
    ignored, applied = tmp_path / "ignored.zarr", tmp_path / "applied.zarr"
    make_store(tmp_path / "images", ignored)
    make_store(tmp_path / "images", applied, exif="apply")
    assert colours_of(ignored, "x.png", [LEFT, RIGHT]) == ["red", "blue"]
    assert colours_of(applied, "x.png", [TOP, BOTTOM]) == ["red", "blue"]
    assert [LabelMapReader(store).info.exif for store in (ignored, applied)] == ["ignore", "apply"]


# Baselines


def soft_labels(store: Path) -> np.ndarray:
    reader = LabelMapReader(store)
    boxes = [WHOLE, LEFT, TOP, (0.1, 0.2, 0.9, 0.7)]
    return np.concatenate([reader.pool([name] * 4, boxes) for name in reader.ids])


def test_a_constant_added_to_all_logits_changes_no_soft_label(make_store, pictures, picture_store, tmp_path):
    make_store(pictures, tmp_path / "shifted.zarr", "toy_annotators:shifted")
    np.testing.assert_allclose(soft_labels(tmp_path / "shifted.zarr"), soft_labels(picture_store), atol=1e-5)


def test_with_the_papers_baseline_a_constant_does_change_them(make_store, pictures, tmp_path):
    make_store(pictures, tmp_path / "zero.zarr", baseline="zero")
    make_store(pictures, tmp_path / "shifted.zarr", "toy_annotators:shifted", baseline="zero")
    difference = np.abs(soft_labels(tmp_path / "shifted.zarr") - soft_labels(tmp_path / "zero.zarr"))
    assert difference.max() > 0.1


# Running again


def test_a_second_run_touches_nothing(make_store, pictures, store):
    before = stamps(store)
    summary = make_store(pictures, store)
    assert summary.new_rows == 0
    assert summary.counts.done == 21
    assert not changed(before, stamps(store))


def test_a_second_run_needs_no_annotator(picture_store, pictures):
    heard = Heard()
    resources = Resources(workers=10_000, device="no such device", threads=1, decode_threads=1, batch_size=1)
    assert annotate(pictures, str(picture_store), Settings(), resources, heard).new_rows == 0
    assert heard.plans == [(21, 21)]


def test_settings_that_are_left_out_are_those_of_the_store(pictures, tmp_path):
    store = str(tmp_path / "labels.zarr")
    chosen = Settings("toy_annotators:colours", image_size=24, top_k=2, baseline="zero", exif="apply", shard_size=8)
    annotate(pictures, store, chosen, SERIAL, Observer())
    before = contents(Path(store))
    (Path(store) / "commits" / "c.1.0.0").unlink()
    summary = annotate(pictures, store, Settings("toy_annotators:colours"), SERIAL, Observer())
    assert summary.new_rows == 8
    assert (summary.info.top_k, summary.info.baseline, summary.info.exif) == (2, "zero", "apply")
    assert summary.info.annotator.input_size == 24
    assert contents(Path(store)) == before


def test_a_shard_without_its_commit_is_made_again_and_only_that(make_store, pictures, store):
    before, stamped = contents(store), stamps(store)
    (store / "commits" / "c.2.0.0").unlink()
    summary = make_store(pictures, store)
    assert summary.new_rows == 4
    assert contents(store) == before
    touched = changed(stamped, stamps(store))
    assert touched
    assert {name.split("/")[1].split(".")[:2] == ["c", "2"] for name in touched} == {True}


@pytest.mark.parametrize("name", ["classes/c.1.0.0.0", "scores/c.1.0.0.0", "status/c.1", "image_crc32/c.1", "commits/c.1.0.0"])
@pytest.mark.parametrize("harm", ["cut short", "emptied", "gone", "last byte changed"])
def test_a_damaged_shard_is_made_again(make_store, pictures, store, name, harm):
    before, data = contents(store), (store / name).read_bytes()
    if harm == "gone":
        (store / name).unlink()
    else:
        harmed = {"cut short": data[:-7], "emptied": b"", "last byte changed": data[:-1] + bytes([data[-1] ^ 1])}[harm]
        (store / name).write_bytes(harmed)
    assert make_store(pictures, store).new_rows == 4
    assert contents(store) == before


def test_what_a_killed_writer_leaves_behind_does_no_harm(make_store, pictures, store):
    before = contents(store)
    (store / "commits" / "c.3.0.0").unlink()
    (store / "classes" / f"c.3.0.0.0.{HALF}").write_bytes(b"half of it")
    make_store(pictures, store)
    after = contents(store)
    assert {name: data for name, data in after.items() if not name.endswith(".partial")} == before
    assert soft_labels(store).shape == (84, 8)


def test_what_a_worker_leaves_that_dies_during_a_run_is_gone_after_it(pictures, picture_store, store):
    (store / "commits" / "c.3.0.0").unlink()

    class Death(Observer):
        def rows(self, done, failed):
            (store / "classes" / f"c.3.0.0.0.{HALF}").write_bytes(b"half of it")

    annotate(pictures, str(store), Settings("toy_annotators:colours"), SERIAL, Death())
    assert contents(store) == contents(picture_store)


@pytest.mark.parametrize("kept", [("zarr.json",), ("zarr.json", "ids/zarr.json", "classes/zarr.json")])
def test_a_creation_that_was_cut_off_is_started_again(make_store, pictures, picture_store, tmp_path, kept):
    half = tmp_path / "labels.zarr"
    for name in kept:
        (half / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture_store / name, half / name)
    root = json.loads((half / "zarr.json").read_text())
    root["attributes"] = {UNFINISHED: True}
    (half / "zarr.json").write_text(json.dumps(root))
    assert make_store(pictures, half).new_rows == 21
    assert store_contents(half) == store_contents(picture_store)


def test_an_empty_folder_may_become_a_store(make_store, pictures, tmp_path):
    (tmp_path / "labels.zarr").mkdir()
    assert make_store(pictures).counts.done == 21


def test_a_creation_that_was_cut_off_before_its_first_file_is_started_again(make_store, pictures, tmp_path):
    (tmp_path / "labels.zarr").mkdir()
    (tmp_path / "labels.zarr" / f"zarr.{HALF}").touch()
    assert make_store(pictures).counts.done == 21


# What does not fit


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"top_k": 4}, "--top-k 4 (the store has 3)"),
        ({"baseline": "zero"}, "--baseline zero (the store has absent_mean)"),
        ({"exif": "apply"}, "--exif apply (the store has ignore)"),
        ({"image_size": 64}, "--image-size 64 (the store has 56)"),
        ({"shard_size": 8}, "--shard-size 8 (the store has 4)"),
        ({"model": "toy_annotators:shifted"}, "--model toy_annotators:shifted (the store has toy_annotators:colours)"),
    ],
)
def test_other_settings_are_refused_with_both_values(make_store, pictures, store, choice, expected):
    before = stamps(store)
    with pytest.raises(StoreMismatchError) as caught:
        make_store(pictures, store, **choice)
    assert expected in str(caught.value)
    assert str(store) in str(caught.value)
    assert not changed(before, stamps(store))


def test_all_settings_that_differ_are_named_and_no_others(make_store, pictures, store):
    with pytest.raises(StoreMismatchError) as caught:
        make_store(pictures, store, top_k=2, exif="apply", baseline="absent_mean")
    assert "--top-k" in str(caught.value)
    assert "--exif" in str(caught.value)
    assert "--baseline" not in str(caught.value)


def test_a_store_of_other_images_is_refused(make_store, pictures, store, tmp_path):
    images = Path(shutil.copytree(pictures, tmp_path / "others"))
    (images / "red" / "0.png").rename(images / "red" / "new.png")
    before = stamps(store)
    with pytest.raises(StoreMismatchError, match=r"1 \(red/new.png\) new, 1 \(red/0.png\) gone"):
        make_store(images, store)
    assert not changed(before, stamps(store))


def test_an_annotator_that_changed_under_its_name_is_refused(make_store, pictures, store):
    edit_attributes(store, lambda attributes: attributes["annotator"].update({"weights_sha256": 64 * "0"}))
    (store / "commits" / "c.2.0.0").unlink()
    before = stamps(store)
    with pytest.raises(StoreMismatchError, match=r"expected the annotator that the store was begun with \(weights 000000"):
        make_store(pictures, store)
    assert not changed(before, stamps(store))


def test_a_folder_of_something_else_is_left_alone(make_store, pictures, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    before = stamps(tmp_path / "thesis")
    with pytest.raises(FormatError, match="thesis"):
        make_store(pictures, tmp_path / "thesis")
    assert not changed(before, stamps(tmp_path / "thesis"))


def test_another_zarr_group_is_left_alone(make_store, pictures, tmp_path):
    import zarr

    zarr.create_group(str(tmp_path / "mine.zarr"), attributes={"author": "me"}).create_array("x", shape=(3,), dtype="u1")
    before = stamps(tmp_path / "mine.zarr")
    with pytest.raises(FormatError, match=r"mine\.zarr"):
        make_store(pictures, tmp_path / "mine.zarr")
    assert not changed(before, stamps(tmp_path / "mine.zarr"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(make_store, pictures, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreWriteError, match="Permission denied"):
        make_store(pictures, tmp_path / "locked" / "labels.zarr")


def test_more_classes_than_the_annotator_has(make_store, pictures, tmp_path):
    with pytest.raises(OptionError, match=r"--top-k 9: expected at most 8"):
        make_store(pictures, top_k=9)
    assert not (tmp_path / "labels.zarr").exists()
    assert make_store(pictures, top_k=8).counts.done == 21


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_an_annotator_of_fewer_classes_than_the_usual_k(make_store, pictures, tmp_path, encoding):
    assert make_store(pictures, model="toy_annotators:few_classes", top_k=None, encoding=encoding).counts.done == 21
    assert LabelMapReader(tmp_path / "labels.zarr").top_k == 3


@pytest.mark.parametrize("model", ["toy_annotators:colors", "no_such_module:colours", "efficientnet-lite00"])
def test_an_unknown_annotator_leaves_no_store(make_store, pictures, tmp_path, model):
    with pytest.raises(AnnotatorError):
        make_store(pictures, model=model)
    assert not (tmp_path / "labels.zarr").exists()


def test_no_images_leave_no_store(make_store, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ImagesError):
        make_store(tmp_path / "images")
    assert not (tmp_path / "labels.zarr").exists()


# Images that fail


@pytest.fixture
def mixed(pictures, tmp_path) -> Path:
    """Good pictures with six among them that cannot be annotated."""
    root = Path(shutil.copytree(pictures, tmp_path / "mixed"))
    good = (root / "red" / "3.png").read_bytes()
    photo = root / "red" / "photo.jpg"
    draw("red", "blue", (200, 200)).save(photo)
    (root / "red" / "cut.jpg").write_bytes(photo.read_bytes()[:-200])
    (root / "red" / "cut.png").write_bytes(good[: len(good) // 2])
    (root / "red" / "text.jpg").write_text("not an image")
    (root / "red" / "nothing.png").touch()
    (root / "red" / "gone.png").symlink_to("nowhere.png")
    (root / "red" / "itself.png").symlink_to("itself.png")
    return root


REASONS = {
    "red/cut.jpg": "truncated",
    "red/cut.png": "cannot be decoded",
    "red/text.jpg": "cannot identify image file",
    "red/nothing.png": "the file is empty",
    "red/gone.png": "cannot be read: No such file or directory",
    "red/itself.png": "cannot be read: Too many levels of symbolic links",
}


def test_a_bad_image_becomes_a_failed_row_with_its_reason(make_store, mixed, tmp_path):
    summary = make_store(mixed)
    assert (summary.counts.done, summary.counts.failed, summary.counts.pending) == (22, 6, 0)
    found = dict(summary.failures)
    assert found.keys() == REASONS.keys()
    reader = LabelMapReader(tmp_path / "labels.zarr")
    for image_id, reason in REASONS.items():
        assert reason in found[image_id]
        assert reader.error(image_id) == found[image_id]
        assert reader.status([image_id]) == [Status.FAILED]
        for read in (lambda name=image_id: reader[name], lambda name=image_id: reader.pool([name], [WHOLE])):
            with pytest.raises(FailedRowError) as caught:
                read()
            assert image_id in str(caught.value)
            assert found[image_id] in str(caught.value)


def test_neighbours_of_a_bad_image_get_the_labels_that_they_get_alone(make_store, mixed, pictures, tmp_path):
    make_store(mixed)
    make_store(pictures, tmp_path / "alone.zarr")
    ours, alone = LabelMapReader(tmp_path / "labels.zarr"), LabelMapReader(tmp_path / "alone.zarr")
    boxes = np.tile(WHOLE, (21, 1))
    np.testing.assert_allclose(ours.pool(alone.ids, boxes), alone.pool(alone.ids, boxes), atol=1e-6)


def test_failed_rows_are_settled_and_not_tried_again(make_store, mixed, tmp_path):
    make_store(mixed)
    before = stamps(tmp_path / "labels.zarr")
    summary = make_store(mixed)
    assert (summary.new_rows, len(summary.failures)) == (0, 6)
    assert not changed(before, stamps(tmp_path / "labels.zarr"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_image_that_may_not_be_read(make_store, tmp_path):
    paint(tmp_path / "images" / "x.png", "red")
    paint(tmp_path / "images" / "locked.png", "red").chmod(0)
    assert make_store(tmp_path / "images").failures == (("locked.png", "cannot be read: Permission denied"),)


def test_a_store_may_hold_nothing_but_failures(make_store, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").touch()
    summary = make_store(tmp_path / "images")
    assert (summary.counts.done, summary.counts.failed, summary.example_id) == (0, 1, None)
    assert summary.counts.bytes_a_map is None


def test_logits_that_are_not_finite_fail_their_row_alone(make_store, tmp_path):
    for name, colour in {"a": "red", "b": "blue", "c": "red", "d": "green"}.items():
        paint(tmp_path / "images" / f"{name}.png", colour)
    summary = make_store(tmp_path / "images", model="toy_annotators:not_finite")
    assert [image_id for image_id, _ in summary.failures] == ["a.png", "c.png"]
    assert {reason for _, reason in summary.failures} == {"the annotator's logits are not finite"}
    assert colours_of(tmp_path / "labels.zarr", "b.png", [WHOLE]) == ["blue"]
    assert colours_of(tmp_path / "labels.zarr", "d.png", [WHOLE]) == ["green"]
    with pytest.raises(FailedRowError, match="not finite"):
        LabelMapReader(tmp_path / "labels.zarr")["a.png"]


# The real model on real photographs


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two photographs, and the two side by side."""
    samples = copy_samples(tmp_path_factory.mktemp("samples"))
    root = tmp_path_factory.mktemp("photos")
    coffee, cat = (Image.open(samples / name).convert("RGB") for name in ("coffee.png", "chelsea.png"))
    coffee.save(root / "coffee.png")
    cat.save(root / "chelsea.png")
    both = Image.new("RGB", (600, 300))
    both.paste(coffee.resize((450, 300)).crop((75, 0, 375, 300)), (0, 0))
    both.paste(cat.crop((75, 0, 375, 300)), (300, 0))
    both.save(root / "both.png")
    return root


@pytest.fixture(scope="module")
def photo_store(photos, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("photo-store") / "labels.zarr"
    heard = Heard()
    annotate(photos, str(store), Settings(), SERIAL, heard)
    assert not heard.warnings  # its own size suits it
    return store


def test_photographs_are_what_they_show(photo_store):
    assert "cat" in colours_of(photo_store, "chelsea.png", [WHOLE])[0]
    assert colours_of(photo_store, "coffee.png", [WHOLE])[0] in ("espresso", "cup")


def test_the_halves_of_a_photograph_of_two_things_are_told_apart(photo_store):
    left, right = colours_of(photo_store, "both.png", [LEFT, RIGHT])
    assert left in ("espresso", "cup", "coffee mug")
    assert "cat" in right
    mirrored = [(0.5, 0.0, 0.0, 1.0), (1.0, 1.0, 0.5, 0.0)]
    assert colours_of(photo_store, "both.png", mirrored) == [left, right]


def test_what_the_store_records_of_its_annotator(photo_store):
    info = LabelMapReader(photo_store).info
    assert (info.annotator.name, info.annotator.input_size, info.map_size) == ("efficientnet-lite0", 224, (7, 7))
    assert (info.num_classes, info.top_k, len(info.class_names)) == (1000, 5, 1000)
    assert info.class_ids[281] == "n02123045"  # tabby cat
    assert {"labelstore", "torch", "zarr", "pillow"} <= info.versions.keys()
    assert info.created.endswith("+00:00")


def test_what_a_worker_told_late_is_not_counted_twice():
    class Told(Observer):
        last = (0, 0)

        def rows(self, done: int, failed: int) -> None:
            self.last = (done, failed)

    told = Told()
    tally = Tally(told)
    tally.progress(0, 3, 0)
    tally.progress(1, 1, 1)
    assert told.last == (4, 1)
    tally.finish(ShardReport(0, 4, (("a.png", "broken"),), {}))
    tally.progress(0, 2, 0)
    assert told.last == (4, 2)


def test_a_run_tells_what_it_has_written(pictures, tmp_path):
    told: list[int] = []

    class Told(Observer):
        def written(self, num_bytes: int) -> None:
            told.append(num_bytes)

    annotate(pictures, str(tmp_path / "store.zarr"), Settings(model="toy_annotators:colours"), SERIAL, Observers([Told()]))
    files = (file for file in tmp_path.rglob("c.*") if file.parent.name not in ("ids", "targets"))
    assert told == sorted(told)
    assert told[-1] == sum(file.stat().st_size for file in files)
