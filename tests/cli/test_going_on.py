"""`annotate` on a store that is there: more images, failed images, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import TOY, run_here
from pictures import paint

from labelstore import LabelMapReader


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """A finished store of five images, one of which failed, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        paint(tmp_path / "old" / "red" / f"{number}.png", "red")
    (tmp_path / "old" / "red" / "9.png").write_text("no image")
    for number in range(3):
        paint(tmp_path / "new" / "blue" / f"a longer name {number}.png", "blue")
    assert run_here("annotate", "old", *TOY).code == 0
    return tmp_path / "labels.zarr"


def test_new_images_are_refused_with_the_option_that_adds_them(store):
    shown = run_here("annotate", "new", *TOY)
    assert (shown.code, shown.out) == (1, "")
    assert "expected the 5 images that the store was made for, found 3" in shown.message
    assert "Add --extend to add the new ones" in shown.message


def test_extending_says_what_is_new(store):
    shown = run_here("annotate", "new", *TOY, "--extend")
    assert shown.code == 0
    assert "new images: 3, for which the store has rows now" in shown.message
    assert shown.out.splitlines()[0] == "7 of 8 images annotated, 1 failed"
    assert shown.out.splitlines()[1].startswith("This run: 3 images in ")
    assert run_here("verify").code == 0
    assert "a longer name 2.png" in run_here("inspect", "blue/a longer name 2.png").out
    info = " ".join(run_here("info").out.split())
    assert "8: 7 done, 1 failed, 0 pending" in info
    assert json.loads(run_here("info", "--json").out)["rows"] == {"all": 8, "done": 7, "failed": 1, "pending": 0}


def test_a_picture_of_an_image_that_was_added_is_found_where_it_lies(store):
    run_here("annotate", "new", *TOY, "--extend")
    for image in ("blue/a longer name 0.png", "red/2.png"):
        shown = run_here("inspect", image, "--save", "map.png")
        assert (shown.code, Path("map.png").exists()) == (0, True), shown.err
        Path("map.png").unlink()


def test_rows_whose_images_are_elsewhere_stay_pending_and_are_not_called_done(store):
    (store / "commits" / "c.0.0.0").unlink()
    shown = run_here("annotate", "new", *TOY, "--extend")
    assert shown.code == 0
    assert "4 rows stay pending: their images are not among these" in shown.message
    again = run_here("annotate", "new", *TOY, "--extend")
    assert "Nothing to do" not in again.err
    assert run_here("verify").code == 1
    assert run_here("annotate", "old", *TOY, "--extend").code == 0
    assert LabelMapReader(store)["red/0.png"].classes.shape == (3, 7, 7)


def test_failed_images_are_tried_again_on_request(store, tmp_path):
    paint(tmp_path / "old" / "red" / "9.png", "red")
    shown = run_here("annotate", "old", *TOY)
    assert "Nothing to do" in shown.err
    assert shown.out.splitlines()[0] == "4 of 5 images annotated, 1 failed"
    shown = run_here("annotate", "old", *TOY, "--retry-failed")
    assert shown.out.splitlines()[0] == "5 of 5 images annotated, 0 failed"
