"""`labelstore verify`: what it prints, for people and for machines, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import environment, run_here, run_installed
from damage import rewrite

COLOURS = ("--model", "toy_annotators:colours")


@pytest.fixture
def store(picture_store, tmp_path) -> Path:
    """A finished store of 21 pictures in six shards of four."""
    return Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))


def test_a_whole_store(store):
    shown = run_installed("verify", store)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == (
        "21 rows: 21 done, 0 failed, 0 pending\n"
        "6 of 6 shards are committed\n"
        "Every byte is as it was written, and every value is one that a label map has.\n"
    )


def test_the_store_is_labels_zarr_unless_it_is_named(store, monkeypatch):
    monkeypatch.chdir(store.parent)
    assert run_here("verify").code == 0


def test_a_damaged_store(store):
    (store / "scores" / "c.1.0.0.0").unlink()
    rewrite(store, 2, lambda arrays: arrays["classes"].__setitem__((1, 1), 99))
    shown = run_here("verify", store)
    assert shown.code == 1
    assert shown.out.splitlines() == [
        "21 rows: 13 done, 0 failed, 0 pending, 8 damaged",
        "6 of 6 shards are committed",
        f"Next:  labelstore repair {store}",
    ]
    assert shown.err.splitlines() == [
        f"Warning: 2 problems in {store}:",
        "  scores/c.1.0.0.0: missing, though shard 1 is committed",
        "  classes/c.2.0.0.0: row 9 (green/2.png): classes: expected 0..7, found 99",
    ]


def test_pending_rows_are_wrong_unless_they_may_be(store):
    (store / "commits" / "c.1.0.0").unlink()
    shown = run_here("verify", store)
    assert (shown.code, shown.err) == (1, "")
    assert shown.out.splitlines() == [
        "21 rows: 17 done, 0 failed, 4 pending",
        "5 of 6 shards are committed",
        "What is committed is right. Run annotate again to make the pending rows.",
    ]
    assert run_here("verify", store, "--partial").code == 0
    (store / "notes.txt").touch()
    assert run_here("verify", store, "--partial").code == 1


def test_strangers_alone_are_nothing_for_repair(store):
    (store / "notes.txt").touch()
    shown = run_here("verify", store)
    assert shown.code == 1
    assert shown.err.splitlines() == [f"Warning: 1 problem in {store}:", "  notes.txt: no file of a label store"]
    assert shown.out.splitlines()[-1] == "Nothing that `repair` could mend."


def test_the_first_problems_are_printed_and_all_as_json(store):
    for number in range(30):
        (store / "scores" / f"c.1.0.0.0.{number:032x}.partial").touch()
    shown = run_here("verify", store)
    lines = shown.err.splitlines()
    assert lines[0] == f"Warning: 30 problems in {store}:"
    assert len(lines) == 22
    assert lines[20] == f"  scores/c.1.0.0.0.{19:032x}.partial: left over by a run that was cut off"
    assert lines[21] == f"  and 10 more: labelstore verify {store} --json"
    assert len(json.loads(run_here("verify", store, "--json").out)["problems"]) == 30


def test_names_with_brackets_and_long_names_are_printed_as_they_are(store, tmp_path):
    name = f"[red]{'x' * 100}[bold].txt"
    moved = store.rename(tmp_path / "my labels.zarr")
    (moved / name).touch()
    shown = run_here("verify", moved)
    assert f"  {name}: no file of a label store" in shown.err.splitlines()
    (moved / "scores" / "c.1.0.0.0").unlink()
    assert run_here("verify", moved).out.splitlines()[-1] == f"Next:  labelstore repair '{moved}'"


def test_json(store):
    (store / "scores" / "c.1.0.0.0").unlink()
    rewrite(store, 2, lambda arrays: arrays["classes"].__setitem__((1, 1), 99))
    (store / "commits" / "c.4.0.0").unlink()
    (store / "notes.txt").touch()
    shown = run_here("verify", store, "--json")
    assert (shown.code, shown.err) == (1, "")
    assert json.loads(shown.out) == {
        "store": str(store),
        "ok": False,
        "rows": {"all": 21, "done": 9, "failed": 0, "pending": 4, "damaged": 8, "unreadable": 0},
        "shards": {"all": 6, "committed": 5, "damaged": [1, 2]},
        "problems": [
            {
                "id": None,
                "file": "scores/c.1.0.0.0",
                "message": "missing, though shard 1 is committed",
                "shard": 1,
                "row": None,
            },
            {
                "id": "green/2.png",
                "file": "classes/c.2.0.0.0",
                "message": "classes: expected 0..7, found 99",
                "shard": 2,
                "row": 9,
            },
            {"id": None, "file": "notes.txt", "message": "no file of a label store", "shard": None, "row": None},
        ],
        "unreadable": [],
        "sample": None,
    }


def test_json_of_a_whole_and_of_a_partial_store(store):
    whole = run_here("verify", store, "--json")
    assert (whole.code, json.loads(whole.out)["ok"], json.loads(whole.out)["problems"]) == (0, True, [])
    (store / "commits" / "c.4.0.0").unlink()
    assert [json.loads(run_here("verify", store, "--json", *more).out)["ok"] for more in ([], ["--partial"])] == [False, True]


def test_more_processes_say_the_same(store, monkeypatch):
    monkeypatch.setattr("labelstore.pipelines.verifying._ROWS_A_TASK", 8)
    (store / "scores" / "c.1.0.0.0").unlink()
    (store / "status" / "c.5").write_bytes(b"")
    assert run_here("verify", store, "--workers", 2) == run_here("verify", store, "--workers", 1)


@pytest.mark.parametrize("count", ["0", "-1", "257", "many"])
def test_a_number_of_processes_that_is_none(store, count):
    shown = run_here("verify", store, "--workers", count)
    assert (shown.code, shown.out) == (2, "")
    assert "'--workers'" in shown.message


def test_what_is_no_store(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    for name, words in (
        ("nothing", "no store here; `labelstore annotate` makes one"),
        ("empty", "no store here; `labelstore annotate` makes one"),
        ("thesis", "expected a label store, found a folder without zarr.json"),
    ):
        shown = run_here("verify", tmp_path / name)
        assert (shown.code, shown.out) == (1, "")
        assert shown.err == f"Error: {tmp_path / name}: {words}\n"
    assert not (tmp_path / "nothing").exists()


def test_help_has_examples_and_fits_80_columns():
    shown = run_here("verify", "--help")
    assert shown.code == 0
    assert "labelstore verify imagenet.zarr --sample 100" in shown.out.partition("Examples:")[2]
    assert [line for line in shown.out.splitlines() if len(line) > 80] == []


# A sample


def test_a_sample_of_an_untouched_store(store):
    shown = run_here("verify", store, "--sample", 5, "--device", "cpu", *COLOURS)
    assert (shown.code, shown.err) == (0, "")
    last = shown.out.splitlines()[-1]
    assert last.startswith("5 rows annotated again: all the same. L1 distance of their soft labels: 0.00")


@pytest.fixture
def exchanged(store, pictures, tmp_path) -> Path:
    """The store's pictures, one of them another now."""
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    shutil.copy(images / "red" / "1.png", images / "blue" / "5.png")
    return images


def test_a_sample_finds_an_exchanged_image(store, exchanged):
    shown = run_here("verify", store, "--sample", 100, "--images", exchanged, *COLOURS)
    assert shown.code == 1
    assert shown.err == "  blue/5.png: the image is not the one that the map was made from\n"
    assert "21 rows annotated again: 1 not the same. L1 distance of their soft labels: 0.0000 on average" in shown.out


def test_a_sample_as_json(store, exchanged):
    shown = run_here("verify", store, "--sample", 100, "--images", exchanged, "--json", *COLOURS)
    said = json.loads(shown.out)
    assert (shown.code, shown.err, said["ok"], said["problems"]) == (1, "", False, [])
    assert said["sample"].keys() == {"rows", "mean_l1", "largest_l1", "problems"}
    message = "the image is not the one that the map was made from"
    assert (said["sample"]["rows"], said["sample"]["problems"]) == (21, [{"id": "blue/5.png", "message": message}])


def test_a_damaged_store_is_not_sampled(store):
    (store / "scores" / "c.1.0.0.0").unlink()
    shown = run_here("verify", store, "--sample", 5)
    assert shown.code == 1
    assert shown.out.splitlines()[-1] == "Nothing was annotated again: that is for a store without problems."


def test_images_that_are_not_there(store, tmp_path):
    shown = run_here("verify", store, "--sample", 5, "--images", tmp_path / "nowhere", *COLOURS)
    assert (shown.code, shown.out) == (1, "")
    assert "nowhere" in shown.message


@pytest.mark.parametrize("more", [["--images", "x"], ["--device", "cpu"], ["--model", "resnet18"]])
def test_what_is_for_a_sample_is_refused_without_one(store, more):
    shown = run_here("verify", store, *more)
    assert shown.code == 2
    assert "--images, --model and --device are for --sample" in shown.message


# As a process


def test_it_loads_neither_torch_nor_dask(store):
    code = f"""
import sys
from labelstore.cli.main import main
sys.argv = ["labelstore", "verify", {str(store)!r}, "--workers", "1"]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
assert not {{"torch", "torchvision", "timm", "dask", "distributed"}} & {{name.split(".")[0] for name in sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), capture_output=True)


SLOW = """
import signal, sys, time
from labelstore.cli.main import main
from labelstore.pipelines import verifying

def slow(*_):
    print("begun", flush=True)
    time.sleep(1)
    return []

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    verifying._ROWS_A_TASK, verifying._check_some = 4, slow
    sys.argv = ["labelstore", "verify", sys.argv[1], "--workers", "2"]
    main()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds left-over processes in /proc")
def test_ctrl_c_ends_it_and_its_processes(store, tmp_path):
    (tmp_path / "slow_verify.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "slow_verify.py"), str(store)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
    assert said.strip() == "Interrupted. What is committed is kept; the same command goes on from there."
    end = time.monotonic() + 30
    while any(session_of(folder) == process.pid for folder in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def session_of(folder: Path) -> int | None:
    try:
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[3]) if fields[0] != "Z" else None
