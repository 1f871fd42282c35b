"""`labelstore info`: a store in numbers, for people and for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import run_here, run_installed
from folders import edit_attributes
from pictures import paint


@pytest.fixture
def patchy(make_store, tmp_path) -> Path:
    """A store of 12 images in three shards: seven done, one failed, four pending."""
    for number in range(11):
        paint(tmp_path / "images" / f"{number:02}.png", "red")
    (tmp_path / "images" / "00 broken [x].jpg").touch()
    make_store(tmp_path / "images")
    (tmp_path / "labels.zarr" / "commits" / "c.1.0.0").unlink()
    return tmp_path / "labels.zarr"


def test_the_installed_command_on_a_finished_store(picture_store, pictures):
    shown = run_installed("info", picture_store)
    assert (shown.code, shown.err) == (0, "")
    words = " ".join(shown.out.split())
    for expected in (
        "21: 21 done, 0 failed, 0 pending",
        "7x7 locations, topk, 3 classes a location of 8",
        "absent_mean",
        "toy_annotators:colours at 56 px, weights ",
        "mean 0 0 0, std 1 1 1, bilinear",
        "3 classes by name",
        "6 of 4 rows",
        "bytes a map",
        "labelstore ",
    ):
        assert expected in words
    assert "failed:" not in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert str(pictures).replace(" ", "") in shown.out.replace("\n", "").replace(" ", "")


def test_failed_and_pending_rows(patchy):
    shown = run_here("info", patchy)
    assert "12: 7 done, 1 failed, 4 pending" in shown.out
    assert "  failed: 00 broken [x].jpg: the file is empty" in shown.out.splitlines()
    assert "4 rows are pending: run annotate again to make them." in shown.out
    assert shown.code == 0


def test_the_same_as_json(patchy):
    said = json.loads(run_here("info", patchy, "--json").out)
    assert said["rows"] == {"all": 12, "done": 7, "failed": 1, "pending": 4}
    assert said["failures"] == [{"id": "00 broken [x].jpg", "reason": "the file is empty"}]
    assert said["bytes"] == sum(file.stat().st_size for file in patchy.rglob("*") if file.is_file())
    assert said["bytes_a_map"] == pytest.approx(said["bytes"] / 7)
    assert said["store"] == str(patchy)
    assert (said["num_classes"], said["top_k"], said["map_size"], said["shard_size"]) == (8, 3, [7, 7], 4)
    assert said["annotator"]["name"] == "toy_annotators:colours"
    assert (said["encoding"], said["baseline"], said["exif"]) == ("topk", "absent_mean", "ignore")
    assert said["versions"]["labelstore"]


def test_only_some_failures_are_shown_to_people(make_store, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(25):
        (tmp_path / "images" / f"{number:02}.jpg").touch()
    make_store(tmp_path / "images")
    shown = run_here("info", tmp_path / "labels.zarr").out
    assert shown.count("  failed: ") == 10
    assert "  and 15 more: labelstore info " in shown
    assert len(json.loads(run_here("info", tmp_path / "labels.zarr", "--json").out)["failures"]) == 25


def test_the_default_is_the_store_that_annotate_makes(picture_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no store here; `labelstore annotate` makes one" in run_here("info").err
    shutil.copytree(picture_store, "labels.zarr")
    assert "21 done" in run_here("info").out


def test_names_that_look_like_markup_are_printed_as_they_are(make_store, tmp_path):
    paint(tmp_path / "photos [old] [/b]" / "x.png", "red")
    make_store(tmp_path / "photos [old] [/b]", tmp_path / "[y].zarr")
    shown = run_here("info", tmp_path / "[y].zarr")
    joined = "".join(shown.out.split())
    assert "[y].zarr" in joined
    assert "photos[old][/b]" in joined


def spoil(store: Path, key: str, value: object) -> None:
    edit_attributes(store, lambda attributes: attributes.update({key: value}))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda store: None, "no store here"),
        (lambda store: store.write_text("text"), "expected a label store (a folder), found a file"),
        (lambda store: [store.mkdir(), (store / "notes.txt").touch()], "found a folder without zarr.json"),
        (lambda store: [store.mkdir(), (store / "zarr.json").write_text("{")], "expected JSON"),
        (lambda store: [store.mkdir(), (store / "zarr.json").write_text("[]")], "expected a label store"),
        (lambda store: [store.mkdir(), (store / "zarr.json").mkdir()], "expected JSON"),
    ],
)
def test_a_path_that_is_no_store(tmp_path, make, expected):
    make(tmp_path / "labels.zarr")
    shown = run_here("info", tmp_path / "labels.zarr")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("Error: ")
    assert expected in shown.message
    assert "labels.zarr" in shown.message


@pytest.mark.parametrize(
    ("key", "value"), [("format_version", 2), ("top_k", "five"), ("encoding", "spectral9"), ("map_size", [7])]
)
def test_a_store_that_this_version_cannot_read(picture_store, tmp_path, key, value):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    spoil(store, key, value)
    shown = run_here("info", store)
    assert (shown.code, shown.out) == (1, "")
    assert str(value).strip("[]") in shown.message
    assert shown.err.count("\n") == 1


def test_damage_is_told_in_one_line(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    file = store / "classes" / "c.1.0.0.0"
    file.write_bytes(file.read_bytes()[:-5])
    shown = run_here("info", store)
    assert shown.code == 1
    assert shown.err.startswith("Error: ")
    assert "c.1.0.0.0: not the file that was committed" in shown.message


def test_a_spectral_store_says_what_its_maps_are_made_of_and_how_far_its_labels_are(spectral_store):
    shown = run_here("info", spectral_store)
    lines = " ".join(shown.out.split())
    assert "7x7 locations, spectral, 3 patterns of 4x4 frequencies, 5 classes an image, 1 bit for each other of 8" in lines
    assert "same best class for" in lines
    said = json.loads(run_here("info", spectral_store, "--json").out)
    assert said["spectral"] == {"classes": 5, "shaped": 3, "patterns": 3, "frequencies": [4, 4], "tail_bits": 1}
    assert set(said["distance"]) == {"l1", "kl", "agreement", "images", "best"}
