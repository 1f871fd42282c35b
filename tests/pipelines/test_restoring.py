"""Lost ids and labels come back from the images, to the byte, or not at all."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import rewrite
from folders import contents
from pictures import paint
from runs import SERIAL, Heard

from labelstore import LabelMapReader
from labelstore.errors import DamagedError, StoreMismatchError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.summary import Summary
from labelstore.schema import NO_CLASS, Status


@pytest.fixture
def store(picture_store, tmp_path) -> Path:
    """A finished store of 21 pictures in six shards of four."""
    return Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))


@pytest.fixture
def images(pictures, tmp_path) -> Path:
    """A copy of the pictures, to be changed."""
    return Path(shutil.copytree(pictures, tmp_path / "images"))


def run(images: Path, store: Path, observer: Observer | None = None, **how) -> Summary:
    return annotate(images, str(store), Settings("toy_annotators:colours"), SERIAL, observer or Observer(), **how)


def lose(store: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in store.glob(pattern):
            file.unlink()


def assert_refused(images: Path, store: Path, words: str, **how) -> None:
    """The run is refused in these words, and the store left as it is."""
    before = contents(store)
    with pytest.raises(StoreMismatchError, match=words):
        run(images, store, **how)
    assert contents(store) == before


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (["ids/c.0.0"], 1),
        (["ids/c.5.0"], 1),
        (["targets/c.2"], 1),
        (["ids/c.1.0", "ids/c.3.0", "targets/c.3"], 3),
        (["ids/c.*"], 6),
        (["targets/c.*"], 6),
        (["ids/c.*", "targets/c.*"], 12),
        (["ids/c.*", "commits/c.*"], 6),
    ],
)
def test_lost_files_come_back_to_the_byte(store, pictures, patterns, count):
    before, heard = contents(store), Heard()
    lose(store, *patterns)
    summary = run(pictures, store, heard)
    assert contents(store) == before
    assert heard.said == [f"lost files of ids and labels, restored from the images: {count}"]
    assert summary.new_rows == (21 if "commits/c.*" in patterns else 0)


def test_a_reader_refuses_a_store_whose_ids_are_lost(store):
    lose(store, "ids/c.1.0")
    with pytest.raises(DamagedError, match=r"ids/c\.1\.0: missing"):
        LabelMapReader(store)


def test_ids_do_not_come_back_without_all_images(store, images):
    (images / "blue" / "5.png").unlink()
    lose(store, "ids/c.1.0")
    assert_refused(images, store, "the ids of 4 rows .from row 4 on. are lost; .* found 3 images that the store does not know")


def test_ids_do_not_come_back_with_an_image_of_other_content(store, images):
    shutil.copy(images / "red" / "1.png", images / "blue" / "5.png")
    lose(store, "ids/c.1.0")
    assert_refused(images, store, "found 'blue/5.png', not the image that row 5 was made from")


def test_ids_do_not_come_back_with_another_image_of_a_name_that_fits(store, images):
    (images / "blue" / "5.png").unlink()
    paint(images / "blue" / "5x.png", "blue")
    lose(store, "ids/c.1.0")
    assert_refused(images, store, "found 'blue/5x.png', not the image that row 5 was made from")


def test_ids_do_not_come_back_with_more_images(store, images):
    paint(images / "blue" / "5x.png", "blue")
    lose(store, "ids/c.1.0")
    assert_refused(images, store, "found 5 images that the store does not know")
    assert_refused(images, store, "found 5 images that the store does not know", extend=True)


def test_ids_do_not_come_back_with_names_that_do_not_fit(store, images):
    (images / "blue" / "6.png").rename(images / "green" / "9.png")
    lose(store, "ids/c.1.0", "commits/c.1.0.0")
    assert_refused(images, store, "ids do not fit between those of the other rows")


def test_ids_do_not_come_back_with_longer_names(store, images):
    (images / "blue" / "6.png").rename(images / "blue" / "6 with a longer name.png")
    lose(store, "ids/c.1.0")
    assert_refused(images, store, "found ids of up to 29 bytes, more than the 11 of the store's")


def test_ids_do_not_come_back_from_other_images_altogether(store, tmp_path):
    paint(tmp_path / "other" / "x.png", "red")
    lose(store, "ids/c.*")
    assert_refused(tmp_path / "other", store, "found 1 images that the store does not know")


def test_labels_do_not_come_back_without_all_images(store, images):
    (images / "red" / "6.png").unlink()
    lose(store, "targets/c.0")
    assert_refused(images, store, "labels of images are lost")


def test_labels_do_not_come_back_from_other_folders(store, images):
    (images / "red").rename(images / "rouge")
    lose(store, "targets/c.0")
    assert_refused(images, store, "labels of images are lost")


def test_an_image_that_could_not_be_read_is_known_by_its_place(store, pictures):
    """A failed row has no checksum of an image that was never read, or that ended the process that read it."""

    def fail(arrays):
        arrays["status"][2], arrays["image_crc32"][2] = Status.FAILED, 0
        arrays["image_size"][2] = 0
        arrays["errors"][2, :7] = np.frombuffer(b"crashed", np.uint8)
        for name, fill in (("classes", NO_CLASS), ("scores", 0), ("score_range", 0)):
            arrays[name][2] = fill

    rewrite(store, 1, fail)
    before = contents(store)
    lose(store, "ids/c.1.0")
    run(pictures, store)
    assert contents(store) == before


# Stores that were extended


@pytest.fixture
def extended(store, images) -> Path:
    """Two rounds of images more, whose ids are between those that are there; the first has a longer name."""
    for number in range(5):
        paint(images / "cyan" / f"{number}.png", "cyan", "red", (60 + number, 40))
    paint(images / "blue" / "0 with a longer name.png", "blue", "green")
    run(images, store, extend=True)
    for number in range(3):
        paint(images / "blue" / f"{number}{number}.png", "blue", "white", (70 + number, 40))
    run(images, store, extend=True)
    return store


@pytest.mark.parametrize(
    "patterns",
    [
        ["ids_1/c.6.0"],
        ["ids_1/c.8.0"],
        ["ids_1/c.*"],
        ["ids_1/c.0.0", "ids_1/c.7.0", "ids_1/c.8.0"],
        ["ids_1/c.*", "targets/c.*"],
    ],
)
def test_ids_of_several_extents_come_back_by_content(extended, images, patterns):
    before = contents(extended)
    lose(extended, *patterns)
    assert run(images, extended).new_rows == 0
    assert contents(extended) == before


def test_images_of_one_content_are_told_apart_by_their_order(store, images):
    for name in ("blue/a.png", "red/a.png"):
        shutil.copy(images / "green" / "1.png", images / name)
    run(images, store, extend=True)
    before = contents(store)
    for seed in range(4):
        some = random.Random(seed).sample([file.name for file in store.glob("ids/c.*")], 3)
        lose(store, *(f"ids/{name}" for name in some))
        run(images, store)
        assert contents(store) == before


@pytest.mark.parametrize("pending", ["commits/c.1.0.0", "commits/c.7.0.0"])
def test_rows_that_have_no_map_yet_take_the_images_that_no_other_row_is_of(store, images, pending):
    for number in range(5):
        paint(images / "blue" / f"{number}x.png", "magenta", "red", (60 + number, 40))
    run(images, store, extend=True)
    before = contents(store)
    lose(store, pending, "ids/c.1.0", "ids/c.7.0")  # blue/4.png, 5, 6, green/0.png; and blue/4x.png
    run(images, store)
    assert contents(store) == before


def test_only_the_new_images_do_not_bring_lost_ids_back(extended, images, tmp_path):
    shutil.copytree(images / "cyan", tmp_path / "more" / "cyan")
    lose(extended, "ids_1/c.0.0")
    assert_refused(tmp_path / "more", extended, "found 0 images that the store does not know", extend=True)
