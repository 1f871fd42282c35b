"""`labelstore annotate` as its users meet it: what it prints, how it ends, and what full disks and wrong choices lead to."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import TOY, run_here, run_installed
from folders import changed, stamps, store_contents
from pictures import draw, paint
from PIL import Image

from labelstore import LabelMapReader
from labelstore.cli.output import human_bytes, human_seconds
from labelstore.pipelines import defaults

PAGE = 4096
TOY_ON_TWO = ("--workers", "2", *TOY[2:])


@pytest.fixture
def images(tmp_path) -> Path:
    """Eight pictures in two folders."""
    root = tmp_path / "images"
    for folder, colour in (("warm", "red"), ("cold", "blue")):
        for number in range(4):
            paint(root / folder / f"{number}.png", colour)
    return root


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """Where annotate puts its store when it is not told; the current folder is a new one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "labels.zarr"


def break_some(images: Path, count: int = 2) -> None:
    for number in range(count):
        (images / "warm" / f"broken {number}.jpg").write_text("no image")


def annotate(images, *more):
    return run_here("annotate", images, *TOY, *more)


# What it says


def test_the_summary_of_the_installed_command(images, store):
    shown = run_installed("annotate", "images", *TOY, cwd=store.parent)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == "8 of 8 images annotated, 0 failed"
    assert lines[1].startswith("This run: 8 images in ")
    assert lines[1].endswith(" images/s")
    assert re.fullmatch(
        r"Distance to the annotator's own labels: L1 0\.\d{3}, KL 0\.\d{3}, same best class for \d+% of crops \(8 images\)",
        lines[2],
    )
    assert lines[3].startswith("Store: labels.zarr (")
    assert lines[3].endswith(" bytes a map)")
    assert lines[4] == "Next:  labelstore inspect cold/0.png"
    assert len(lines) == 5


def test_what_it_says_to_type_next_works(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (images / "cold" / "0.png").rename(images / "cold" / "it's a picture.png")
    shutil.rmtree(images / "warm")
    for number in range(1, 4):
        (images / "cold" / f"{number}.png").unlink()
    shown = annotate(images, "--store", "my labels.zarr")
    following = shown.out.splitlines()[-1].removeprefix("Next:  labelstore ")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {following}"], capture_output=True, text=True, check=True).stdout
    looked = run_here(*words.splitlines())
    assert (looked.code, looked.err) == (0, "")
    assert "blue" in looked.out


def test_the_summary_as_json(images, store):
    break_some(images)
    shown = annotate(images, "--json")
    said = json.loads(shown.out)
    assert (said["store"], said["images"], said["done"], said["failed"], said["pending"]) == ("labels.zarr", 10, 8, 2, 0)
    assert said["new"] == 10
    assert said["seconds"] > 0
    assert said["images_per_second"] == pytest.approx(10 / said["seconds"], rel=0.05)
    assert said["bytes"] == sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    assert said["bytes_a_map"] == pytest.approx(said["bytes"] / 8)
    assert [failure["id"] for failure in said["failures"]] == ["warm/broken 0.jpg", "warm/broken 1.jpg"]


def test_a_second_run_does_nothing_and_says_so(images, store):
    annotate(images)
    before = stamps(store)
    shown = annotate(images)
    assert shown.code == 0
    assert shown.message == "Nothing to do: all 8 images are in labels.zarr."
    assert "This run" not in shown.out
    assert json.loads(annotate(images, "--json").out)["new"] == 0
    assert not changed(before, stamps(store))


def test_a_later_run_says_what_it_did_itself(images, store):
    annotate(images)
    (store / "commits" / "c.1.0.0").unlink()
    shown = annotate(images)
    assert "8 of 8 images annotated" in shown.out
    assert "This run: 4 images" in shown.out


def test_without_a_folder_it_annotates_the_samples_and_says_so(store):
    shown = run_here("annotate", *TOY)
    assert shown.code == 0
    assert "annotating the sample photographs, copied to labelstore-samples/" in shown.err
    assert {"chelsea.png", "coffee.png"} <= set(LabelMapReader(store).ids)
    assert run_here("annotate", *TOY).code == 0


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "photos [old] [/b]"
    broken = paint(images / "[red]broken[/blue] :cat:.jpg", "red")
    broken.rename(images / "x.jpg")
    broken.touch()
    for _ in range(2):
        shown = annotate(images, "--store", "[x].zarr")
        assert shown.code == 0
        assert "[red]broken[/blue] :cat:.jpg: the file is empty" in shown.err
        assert "[x].zarr" in shown.out
    assert "are in [x].zarr." in shown.err


def test_help_says_what_the_defaults_are():
    words = "".join(run_here("annotate", "--help").out.split())
    for default in ("labels.zarr", defaults.MODEL, defaults.TOP_K, defaults.ENCODING, defaults.EXIF, "auto"):
        assert f"[default:{default}" in words


# Images that fail


def test_failed_images_are_listed_and_the_run_succeeds(images, store):
    break_some(images)
    shown = annotate(images)
    assert shown.code == 0
    assert shown.err.splitlines() == [
        "Warning: 2 images failed:",
        "  warm/broken 0.jpg: cannot be decoded: cannot identify image file",
        "  warm/broken 1.jpg: cannot be decoded: cannot identify image file",
    ]
    assert shown.out.startswith("8 of 10 images annotated, 2 failed")


def test_a_long_line_about_a_failure_is_not_broken(images, store):
    name = "a very long name " * 8 + ".jpg"
    (images / "warm" / name).touch()
    assert f"  warm/{name}: the file is empty" in annotate(images).err.splitlines()


def test_many_failures_are_cut_short_with_the_command_that_lists_all(images, store):
    break_some(images, 13)
    shown = annotate(images)
    lines = shown.err.splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 3 more: labelstore info labels.zarr --json"
    assert len(json.loads(run_here("info", "--json").out)["failures"]) == 13


def test_strict_exits_with_1_if_any_image_failed(images, store):
    assert annotate(images, "--strict").code == 0
    other = Path(shutil.copytree(images, store.parent / "other"))
    break_some(other)
    for _ in range(2):  # also when there is nothing left to do
        shown = annotate(other, "--store", "other.zarr", "--strict")
        assert shown.code == 1
        assert shown.err.splitlines()[-1] == "Error: 2 of 10 images failed"
        assert "8 of 10 images annotated" in shown.out


def test_a_run_in_which_every_image_failed_exits_with_1(store):
    (store.parent / "images").mkdir()
    for number in range(3):
        (store.parent / "images" / f"{number}.jpg").write_text("no image")
    shown = annotate("images")
    assert shown.code == 1
    assert shown.err.splitlines()[-1] == "Error: 3 of 3 images failed"
    assert "Next:" not in shown.out


def test_an_annotator_whose_outputs_are_not_finite(images, store):
    shown = run_here("annotate", images, "--workers", "0", "--model", "toy_annotators:not_finite", "--top-k", "3")
    assert shown.code == 0
    assert shown.err.count("the annotator's logits are not finite") == 4
    assert shown.out.startswith("4 of 8 images annotated, 4 failed")


# Choices that do not fit


def one_error(shown, code: int) -> str:
    """The one message of a command that failed."""
    assert shown.code == code
    assert shown.out == ""
    assert [line[:7] for line in shown.err.splitlines()].count("Error: ") == 1
    assert "Traceback" not in shown.err
    return shown.message.split("Error: ", 1)[1]


def test_images_that_are_missing_or_of_no_known_kind(store):
    (store.parent / "notes.md").touch()
    (store.parent / "empty.txt").touch()
    assert "nowhere: expected a folder of images, a list (.txt, .csv), or tar or Parquet files, found nothing" in one_error(
        annotate("nowhere"), 1
    )
    assert "notes.md: expected a folder of images, a list (.txt, .csv), or tar or Parquet files, found a file" in one_error(
        annotate("notes.md"), 1
    )
    assert "empty.txt: an empty list" in one_error(annotate("empty.txt"), 1)
    assert not store.exists()


def test_a_folder_without_images(store):
    (store.parent / "images").mkdir()
    assert "images: no images below this folder (0 other files)" in one_error(annotate("images"), 1)
    (store.parent / "images" / "notes.txt").touch()
    assert "(1 other files); known: .jpg, .jpeg, .jpe, .jfif, .png" in one_error(annotate("images"), 1)
    assert not store.exists()


def test_a_file_name_that_is_not_utf8_is_a_failed_row(images, store):
    Path(os.fsdecode(os.fsencode(images) + b"/caf\xe9.png")).touch()
    shown = annotate(images)
    assert shown.code == 0
    assert shown.out.startswith("8 of 9 images annotated, 1 failed")
    assert r"  caf\xe9.png: the file's name is not UTF-8: rename it, or no data set finds its row" in shown.err.splitlines()


def test_a_folder_whose_own_name_is_not_utf8(images, store):
    other = Path(os.fsdecode(os.fsencode(images.parent) + b"/caf\xe9"))
    images.rename(other)
    shown = annotate(other)
    assert "Traceback" not in shown.err
    assert shown.code in (0, 1)


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("efficientnet-lite", "efficientnet-lite0"),
        ("timm:resnet501", "resnet50"),
        ("torchvision:resnet52", "resnet50"),
        ("toy_annotators:color", "colours"),
    ],
)
def test_an_unknown_annotator_names_those_like_it(images, store, model, near):
    message = one_error(run_here("annotate", images, "--workers", "0", "--model", model), 1)
    assert model.split(":")[-1] in message
    assert near in message
    assert not store.exists()


def test_an_annotator_of_a_module_that_is_not_there(images, store):
    message = one_error(run_here("annotate", images, "--workers", "0", "--model", "no_such_module:make"), 1)
    assert "cannot import 'no_such_module'" in message
    assert "PYTHONPATH" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(images, store):
    assert "--device cuda: no CUDA device is usable here" in one_error(annotate(images, "--device", "cuda"), 2)
    assert not store.exists()


def test_more_classes_than_there_are(images, store):
    message = one_error(annotate(images, "--top-k", "9"), 2)
    assert message == "--top-k 9: expected at most 8, the classes of toy_annotators:colours"
    assert not store.exists()


def test_a_store_with_other_settings_says_which(images, store):
    annotate(images)
    before = stamps(store)
    message = one_error(annotate(images, "--top-k", "4", "--exif", "apply", "--baseline", "zero"), 1)
    assert "labels.zarr: this store was made with other settings" in message
    for words in ("--top-k 4 (the store has 3)", "--exif apply (the store has ignore)", "--baseline zero"):
        assert words in message
    assert not changed(before, stamps(store))


def test_a_store_of_other_images_says_how_many(images, store):
    annotate(images)
    paint(images / "warm" / "new.png", "red")
    assert "1 (warm/new.png) new, 0 gone" in one_error(annotate(images), 1)


def test_a_store_path_where_something_else_is(images, store):
    (store.parent / "notes.txt").write_text("mine")
    (store.parent / "thesis").mkdir()
    (store.parent / "thesis" / "chapter1.tex").write_text("mine")
    before = stamps(store.parent)
    for other in ("notes.txt", "thesis", "images"):
        assert other in one_error(annotate(images, "--store", other), 1)
    assert not changed(before, stamps(store.parent))


def test_a_store_below_a_folder_that_is_not_there_yet(images, store):
    assert annotate(images, "--store", "new/deep/labels.zarr").code == 0
    assert len(LabelMapReader(store.parent / "new" / "deep" / "labels.zarr")) == 8


def test_a_store_below_a_file(images, store):
    (store.parent / "notes.txt").touch()
    assert "notes.txt" in one_error(annotate(images, "--store", "notes.txt/labels.zarr"), 1)


def test_samples_that_cannot_be_copied(store):
    (store.parent / "labelstore-samples").touch()
    assert "labelstore-samples: " in one_error(run_here("annotate", *TOY), 1)


# Disks


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of its own, of 4 MB; `resize` changes it."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def pages(disk: Path) -> int:
    """The disk's used pages."""
    status = os.statvfs(disk)
    return status.f_blocks - status.f_bfree


@pytest.fixture
def reference(pictures, tmp_path) -> Callable[[], dict[str, bytes]]:
    """The contents of a store of the 21 pictures, made on a disk without such troubles."""

    def make() -> dict[str, bytes]:
        assert annotate(pictures, "--store", tmp_path / "reference.zarr").code == 0
        return store_contents(tmp_path / "reference.zarr")

    return make


def test_a_disk_that_fills_up_keeps_what_is_committed_and_the_run_goes_on_later(disk, pictures, reference):
    store = disk / "labels.zarr"
    assert annotate(pictures, "--store", store).code == 0
    gc.collect()  # the run's reader has files open, whose pages would be counted
    for shard in range(2, 6):  # now as many pages as two shards need, and three to spare
        for file in store.glob(f"*/c.{shard}*"):
            if file.parent.name not in ("ids", "targets"):
                file.unlink()
    remount(disk, f"size={(pages(disk) + 3) * PAGE}")
    message = one_error(annotate(pictures, "--store", store), 1)
    assert message.startswith(f"{store}: cannot be written: No space left on device. What is committed is kept")
    assert LabelMapReader(store).status().tolist() == [1] * 8 + [0] * 13
    assert LabelMapReader(store).pool([0], [(0, 0, 1, 1)]).shape == (1, 8)
    remount(disk, "size=4m")
    shown = annotate(pictures, "--store", store)
    assert (shown.code, "This run: 13 images" in shown.out) == (0, True)
    assert store_contents(store) == reference()


@pytest.mark.slow
def test_a_disk_of_16_mb_that_fills_up_while_two_workers_write(disk, tmp_path):
    """A shard's files take some nine pages: 600 shards do not fit."""
    store, photos = disk / "labels.zarr", tmp_path / "photos"
    picture = paint(tmp_path / "picture.png", "red", "blue")
    photos.mkdir()
    for number in range(2400):
        (photos / f"{number:04}.png").hardlink_to(picture)
    options = ("annotate", photos, "--store", store, *TOY_ON_TWO, "--shard-size", "4")
    remount(disk, "size=16m")
    message = one_error(run_installed(*options), 1)
    assert re.search(r"labels\.zarr: cannot be written: No space left on device\. What is committed is kept; [^.]*$", message)
    assert run_installed("verify", store, "--partial").code == 0
    made = LabelMapReader(store).status() == 1
    assert 1000 < made.sum() < 2400
    truth = LabelMapReader(store).pool([0], [(0, 0, 1, 1)])
    before = {name: stamp for name, stamp in stamps(store).items() if name.startswith("commits/c.")}
    assert len(before) == made.sum() / 4
    remount(disk, "size=32m")
    shown = run_installed(*options)
    assert (shown.code, f"This run: {2400 - made.sum():,} images" in shown.out) == (0, True)
    assert not changed(before, {name: stamp for name, stamp in stamps(store).items() if name in before})
    assert run_installed("verify", store).code == 0
    rows = list(range(2400))
    assert (LabelMapReader(store).pool(rows, [(0, 0, 1, 1)] * len(rows)) == truth).all()


@pytest.mark.parametrize("free", [0, 1, 2, 5, 9, 14])
def test_a_disk_that_fills_up_while_the_store_is_created(disk, pictures, reference, free):
    store = disk / "labels.zarr"
    (disk / "filler").write_bytes(bytes(PAGE))
    remount(disk, f"size={(pages(disk) + free) * PAGE}")
    assert "No space left on device" in one_error(annotate(pictures, "--store", store), 1)
    remount(disk, "size=4m")
    assert annotate(pictures, "--store", store).code == 0
    assert store_contents(store) == reference()


def test_a_read_only_disk(disk, pictures):
    store = disk / "labels.zarr"
    assert annotate(pictures, "--store", store).code == 0
    (store / "commits" / "c.2.0.0").unlink()
    before = stamps(disk)
    remount(disk, "ro")
    for place in (store, disk / "new.zarr"):
        message = one_error(annotate(pictures, "--store", place), 1)
        assert message.startswith(f"{place}: cannot be written: Read-only file system")
    assert not changed(before, stamps(disk))
    assert (LabelMapReader(store).status() == 1).sum() == 17
    remount(disk, "rw")
    assert "This run: 4 images" in annotate(pictures, "--store", store).out


def test_a_finished_store_on_a_read_only_disk_is_no_trouble(disk, pictures):
    assert annotate(pictures, "--store", disk / "labels.zarr").code == 0
    remount(disk, "ro")
    assert "Nothing to do" in annotate(pictures, "--store", disk / "labels.zarr").err


def test_samples_on_a_read_only_disk(disk, monkeypatch):
    monkeypatch.chdir(disk)
    remount(disk, "ro")
    assert "Read-only file system" in one_error(run_here("annotate", *TOY), 1)


# The real thing


def test_the_default_annotator_warns_of_a_size_that_makes_labels_flat(store, tmp_path):
    from labelstore.pipelines.samples import copy_samples

    samples = copy_samples(tmp_path / "samples")
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(samples / name, tmp_path / "photos")
    shown = run_here("annotate", "photos", "--workers", "0", "--image-size", "512")
    assert shown.code == 0
    assert "Warning: efficientnet-lite0 is much less sure at 512 px than at its own 224 px" in shown.err
    assert shown.out.startswith("2 of 2 images annotated, 0 failed")


def test_pictures_of_many_kinds_in_one_run(store, tmp_path):
    (tmp_path / "images").mkdir()
    red = draw("red")
    for mode, name in (("L", "l.png"), ("CMYK", "c.jpg"), ("P", "p.png"), ("RGBA", "a.png"), ("LA", "la.png"), ("1", "1.png")):
        red.convert(mode).save(tmp_path / "images" / name)
    Image.new("I;16", (60, 40), 30000).save(tmp_path / "images" / "i.png")
    red.save(tmp_path / "images" / "g.gif", save_all=True, append_images=[draw("blue")], duration=10)
    assert annotate("images", "--grey16", "scale").out.startswith("8 of 8 images annotated, 0 failed")
    reader = LabelMapReader(store)
    best = reader.pool(["c.jpg", "p.png", "a.png", "g.gif"], [(0, 0, 1, 1)] * 4).argmax(axis=1)
    assert [reader.class_names[number] for number in best] == ["red"] * 4


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, "size unknown"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (5e15, "5000.0 TB")],
)
def test_bytes_in_words(count, words):
    assert human_bytes(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")])
def test_seconds_in_words(seconds, words):
    assert human_seconds(seconds) == words
