"""What a survey has found is kept: a second start looks at nothing, or at what has changed alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import TOY, run_here
from pictures import paint
from web_client import client_of

from labelstore.cli.survey_cache import SurveyCache
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.pipelines.user_cache import cache_folder
from labelstore.reader import LabelMapReader
from labelstore.survey import COLUMNS, Survey

SHARD = 4


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def looked(monkeypatch):
    """The rows that surveys look at, in one list."""
    rows: list[int] = []
    add = Survey.add

    def counted(self, reader, some):
        rows.extend(some.tolist())
        add(self, reader, some)

    monkeypatch.setattr(Survey, "add", counted)
    return rows


@pytest.fixture
def store(tmp_path) -> Path:
    """Twelve pictures in shards of four."""
    for number in range(12):
        paint(tmp_path / "images" / "red" / f"{number:02}.png", "red" if number % 2 else "blue")
    command = ("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY)
    assert run_here(*command, "--shard-size", SHARD).code == 0
    return tmp_path / "labels.zarr"


def view(store: Path, class_map=None) -> dict:
    """Start and end a server; what it says when it has looked at all."""
    site = Site(str(store), class_map=class_map)
    with serving(site) as url:
        return client_of(url, site).get("survey").json


def make_again(tmp_path: Path, shard: int, colour: str) -> None:
    for number in range(SHARD * shard, SHARD * shard + SHARD):
        paint(tmp_path / "images" / "red" / f"{number:02}.png", colour)
    (tmp_path / "labels.zarr" / "commits" / f"c.{shard}.0.0").unlink()
    assert run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY).code == 0


def test_a_second_start_looks_at_nothing_and_says_the_same(store, looked):
    first = view(store)
    assert sorted(looked) == list(range(12))
    looked.clear()
    assert view(store) == first
    assert looked == []
    (file,) = cache_folder("survey").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_viewer_and_report_share_it(store, looked, tmp_path):
    assert run_here("report", store, "--out", tmp_path / "r.html").code == 0
    assert sorted(looked) == list(range(12))
    looked.clear()
    view(store)
    assert run_here("report", store, "--out", tmp_path / "r.html").code == 0
    assert looked == []


def test_a_shard_that_was_made_again_is_looked_at_alone(store, looked, tmp_path):
    view(store)
    looked.clear()
    make_again(tmp_path, 1, "cyan")
    found = view(store)
    assert sorted(looked) == [4, 5, 6, 7]
    assert {each["name"]: each["best"] for each in found["classes"] if each["best"]} == {"cyan": 4, "red": 4, "blue": 4}


def test_rows_that_were_added_are_looked_at_alone(store, looked, tmp_path):
    view(store)
    looked.clear()
    paint(tmp_path / "new" / "red" / "new.png", "red")
    assert run_here("annotate", tmp_path / "new", "--store", store, *TOY, "--extend").code == 0
    view(store)
    assert looked == [12]


def test_other_labels_are_looked_at_anew(store, looked):
    view(store)
    looked.clear()
    view(store, {"red": "blue"})
    assert sorted(looked) == list(range(12))


def test_another_store_at_the_same_place_is_looked_at(store, looked, tmp_path):
    view(store)
    looked.clear()
    shutil.rmtree(store)
    command = ("annotate", tmp_path / "images", "--store", store, *TOY, "--shard-size", SHARD)
    assert run_here(*command, "--encoding", "spectral").code == 0
    view(store)
    assert sorted(looked) == list(range(12))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other arrays", "folder", "link"])
def test_a_damaged_file_is_ignored_and_mended(store, looked, damage, tmp_path):
    first = view(store)
    (file,) = cache_folder("survey").iterdir()
    data = bytearray(file.read_bytes())
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "link":
        file.symlink_to(tmp_path / "nowhere")
    elif damage == "other arrays":
        with file.open("wb") as out:
            np.savez(out, keys=np.zeros(3, np.uint64), known=np.ones(12, np.bool_), **{name: np.zeros(12) for name in COLUMNS})
    else:
        data[len(data) // 2] ^= 255
        file.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "text": b"no archive"}[damage])
    looked.clear()
    assert view(store) == first
    assert sorted(looked) == list(range(12))
    if damage != "folder":
        looked.clear()
        view(store)
        assert looked == []


def test_where_nothing_can_be_kept_it_is_looked_at_each_time(store, looked, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    view(store)
    view(store)
    assert sorted(looked) == sorted([*range(12)] * 2)


def test_a_survey_that_was_cut_off_is_gone_on_with(store, looked):
    reader = LabelMapReader(store)
    survey = Survey(reader)
    survey.add(reader, np.arange(6))  # a shard and a half
    SurveyCache(str(store), reader, survey).save()
    looked.clear()
    view(store)
    assert sorted(looked) == list(range(4, 12))


def test_few_files_are_kept(store, monkeypatch):
    monkeypatch.setattr("labelstore.cli.survey_cache._MOST_FILES", 2)
    folder = cache_folder("survey")
    folder.mkdir(parents=True, mode=0o700)
    for number in range(3):
        (folder / f"{number}.npz").touch()
        os.utime(folder / f"{number}.npz", (number, number))
    view(store)
    assert len(list(folder.iterdir())) == 2
    assert (folder / "2.npz").exists()
