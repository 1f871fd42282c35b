"""`labelstore repair`: what it prints, how it ends, and that annotate goes on from there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, run_here, run_installed
from folders import HALF, changed, contents, stamps


@pytest.fixture
def store(picture_store, tmp_path) -> Path:
    """A finished store of 21 pictures in six shards of four."""
    return Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))


def test_nothing_to_repair(store):
    before = stamps(store)
    shown = run_here("repair", store)
    assert (shown.code, shown.out, shown.err) == (0, "Nothing to repair.\n", "")
    assert not changed(before, stamps(store))


def test_the_whole_way_of_a_user(store, pictures):
    original = contents(store)
    (store / "scores" / "c.1.0.0.0").write_bytes(b"")
    (store / "ids" / "c.2.0").unlink()
    (store / "zarr.json").unlink()
    (store / "classes" / f"c.3.0.0.0.{HALF}").touch()
    assert run_here("verify", store).code == 1
    shown = run_installed("repair", store)
    assert shown.code == 0
    assert shown.out.splitlines() == [
        "1 damaged shard: pending again",
        "1 damaged index file: set aside, for annotate to restore from the images",
        "1 left-over file: removed",
        "1 set of metadata files: restored",
        f"Next:  labelstore annotate IMAGES --store {store}",
    ]
    assert shown.err.splitlines()[0] == f"Warning: 5 problems in {store}:"
    assert run_here("annotate", pictures, "--store", store, "--workers", 0, "--model", "toy_annotators:colours").code == 0
    assert contents(store) == original
    assert run_here("verify", store).code == 0


def test_json(store):
    (store / "scores" / "c.1.0.0.0").unlink()
    (store / "targets" / "c.1").unlink()
    (store / "classes" / f"c.3.0.0.0.{HALF}").touch()
    (store / "notes.txt").touch()
    shown = run_here("repair", store, "--json")
    said = json.loads(shown.out)
    assert (shown.code, shown.err) == (1, "")
    assert said.keys() == {"store", "ok", "rows", "shards", "problems", "unreadable", "repaired", "kept"}
    assert said["repaired"] == {"shards": 1, "index_files": 1, "left_overs": 1, "metadata": False, "brought_back": 0}
    assert (said["ok"], said["kept"], len(said["problems"])) == (False, ["notes.txt"], 4)
    (store / "notes.txt").unlink()
    again = run_here("repair", store, "--json")
    assert (again.code, json.loads(again.out)["ok"]) == (0, True)


def test_most_shards_go_only_with_yes(store):
    for file in (store / "scores").glob("c.*"):
        file.write_bytes(b"")
    shown = run_here("repair", store)
    assert (shown.code, shown.out) == (1, "")
    assert "6 of 6 shards are damaged" in shown.message
    assert "--yes gives them up" in shown.message
    assert len(list((store / "commits").glob("c.*.0.0"))) == 6
    assert run_here("repair", store, "--yes").out.startswith("6 damaged shards: pending again\n")
    assert len(list((store / "commits").glob("c.*.set-aside"))) == 6


@pytest.mark.parametrize("command", ["verify", "repair"])
@pytest.mark.parametrize(("code", "words"), [(errno.EIO, "Input/output error"), (errno.ESTALE, "Stale file handle")])
def test_what_cannot_be_read_has_an_exit_code_of_its_own(store, monkeypatch, command, code, words):
    plain = os.fstat

    def failing(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "c.1":
            raise OSError(code, os.strerror(code))
        return plain(descriptor)

    before = stamps(store)
    monkeypatch.setattr(os, "fstat", failing)
    shown = run_here(command, store)
    assert shown.code == 3
    assert f"c.1: cannot be read: {words}. That says nothing of what is there" in shown.message
    monkeypatch.undo()
    assert not changed(before, stamps(store))
    assert run_here("verify", store).code == 0


def test_what_only_the_user_can_deal_with(store):
    (store / "notes.txt").touch()
    shown = run_here("repair", store)
    assert shown.code == 1
    assert shown.out == "1 file of somebody else: kept; to be removed by hand if nobody needs them\n"
    assert shown.err.splitlines() == [f"Warning: 1 problem in {store}:", "  notes.txt: no file of a label store"]
    assert (store / "notes.txt").exists()


def test_labels_that_no_copy_is_left_of(store):
    for key in ("zarr.json", "commits/zarr.json"):
        (store / key).write_text("{")
    before = stamps(store)
    shown = run_here("repair", store)
    assert (shown.code, shown.out) == (1, "")
    assert shown.message.endswith("the copy in commits/zarr.json cannot be used either, so the store cannot be mended")
    assert not changed(before, stamps(store))


@pytest.mark.parametrize("made", [True, False])
def test_where_there_is_no_store(tmp_path, made):
    if made:
        (tmp_path / "labels.zarr").mkdir()
    shown = run_here("repair", tmp_path / "labels.zarr")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err == f"Error: {tmp_path / 'labels.zarr'}: no store here; `labelstore annotate` makes one\n"
    assert (tmp_path / "labels.zarr").exists() == made


HOLD = """
import sys, time
from labelstore.pipelines.lock import store_lock
with store_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_store_that_another_process_writes_to(store):
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        shown = run_here("repair", store)
        process.kill()
    assert (shown.code, shown.out) == (1, "")
    assert f"process {process.pid} on " in shown.message
    assert shown.message.endswith("is writing to this store; wait for it, or end it, and try again")


def test_wrong_usage(store):
    for arguments in (["--workers", 0], ["--sample", 3], ["--force"]):
        assert run_here("repair", store, *arguments).code == 2


def test_help_has_examples_and_fits_80_columns():
    shown = run_here("repair", "--help")
    assert shown.code == 0
    words, _, rest = shown.out.partition("Examples:")
    examples, _, options = rest.partition("\n\n")  # commands to copy: not wrapped
    assert "labelstore repair imagenet.zarr && labelstore annotate" in examples
    assert [line for line in (words + options).splitlines() if len(line) > 80] == []
