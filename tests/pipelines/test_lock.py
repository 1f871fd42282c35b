"""One writer a store, and nothing left of one that was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import TOY, environment, run_here

from labelstore import LabelMapReader
from labelstore.errors import StoreBusyError, StoreWriteError
from labelstore.pipelines.lock import is_locked, store_lock, try_store_lock
from labelstore.storage import LOCK

HOLD = """
import sys, time
from labelstore.pipelines.lock import store_lock
with store_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of a store."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "labels.zarr"], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_refused_and_told_who_the_first_is(owner, tmp_path):
    words = rf"process {owner.pid} on .* \(since .* UTC\) is writing to this store"
    with pytest.raises(StoreBusyError, match=words), store_lock(str(tmp_path / "labels.zarr")):
        pass
    assert is_locked(str(tmp_path / "labels.zarr"))


def test_a_killed_owner_leaves_no_lock_behind(owner, tmp_path):
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert (tmp_path / "labels.zarr" / LOCK).exists()
    assert not is_locked(str(tmp_path / "labels.zarr"))
    with store_lock(str(tmp_path / "labels.zarr")):
        assert is_locked(str(tmp_path / "labels.zarr"))
    assert not (tmp_path / "labels.zarr" / LOCK).exists()


def test_a_folder_made_for_the_lock_alone_goes_again(tmp_path):
    with store_lock(str(tmp_path / "new" / "labels.zarr")):
        assert (tmp_path / "new" / "labels.zarr").is_dir()
    assert not (tmp_path / "new" / "labels.zarr").exists()
    (tmp_path / "mine.zarr").mkdir()
    with store_lock(str(tmp_path / "mine.zarr")):
        pass
    assert (tmp_path / "mine.zarr").is_dir()


def test_where_there_is_no_place_for_a_lock(tmp_path):
    (tmp_path / "file").touch()
    with try_store_lock(str(tmp_path / "file" / "labels.zarr")) as problem:
        assert isinstance(problem, StoreWriteError)
    with pytest.raises(StoreWriteError, match="cannot be written"), store_lock(str(tmp_path / "file")):
        pass


def test_only_one_of_many_threads_and_processes_holds_it_at_a_time(tmp_path):
    """Each that gets it counts up in a file, unlocked but for that: a lost count is two at once."""
    counter = tmp_path / "count"
    counter.write_text("0")
    store = str(tmp_path / "labels.zarr")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(store, counter, 20)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert counter.read_text() == "80"
    assert not list(Path(store).glob("*"))


def count_up(store: str, counter: Path, times: int) -> None:
    while times:
        try:
            with store_lock(store):
                counter.write_text(str(int(counter.read_text()) + 1))
                times -= 1
        except StoreBusyError:
            threading.Event().wait(0.001)


def test_a_second_annotate_is_refused_until_the_first_is_gone(owner, pictures, picture_store, tmp_path):
    store = tmp_path / "labels.zarr"
    shown = run_here("annotate", pictures, "--store", store, *TOY)
    assert shown.code == 1
    assert f"process {owner.pid} on" in shown.message
    assert "is writing to this store" in shown.message
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert run_here("annotate", pictures, "--store", store, *TOY).code == 0
    assert sorted(entry.name for entry in store.iterdir()) == sorted({*(entry.name for entry in store.iterdir())} - {LOCK})


def test_a_finished_store_is_looked_at_all_the_same(make_store, owner, pictures, tmp_path):
    make_store(pictures, tmp_path / "done.zarr")
    (tmp_path / "done.zarr").rename(tmp_path / "moved")
    for entry in (tmp_path / "moved").iterdir():
        entry.rename(tmp_path / "labels.zarr" / entry.name)
    shown = run_here("annotate", pictures, "--store", tmp_path / "labels.zarr", *TOY, "--json")
    assert (shown.code, json.loads(shown.out)["new"]) == (0, 0)
    assert LabelMapReader(tmp_path / "labels.zarr").read([0]).classes.shape == (1, 3, 7, 7)
    refused = run_here("annotate", pictures, "--store", tmp_path / "labels.zarr", *TOY, "--retry-failed")
    assert (refused.code, "is writing to this store" in refused.message) == (1, True)


def test_what_holds_the_lock_need_not_say_who_it_is(owner, tmp_path):
    for written in (b"", b"\xff", b"[]", b'{"pid": "me"}', b'{"pid": 1}'):
        (tmp_path / "labels.zarr" / LOCK).write_bytes(written)
        with pytest.raises(StoreBusyError, match="another process is writing"), store_lock(str(tmp_path / "labels.zarr")):
            pass
