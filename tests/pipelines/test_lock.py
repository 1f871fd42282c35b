"""One writer a store, and nothing left of one that was killed."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import TOY, environment, run_here, run_installed

from labelstore import LabelMapReader
from labelstore.errors import StoreBusyError, StoreWriteError, UnlockedStoreWarning
from labelstore.pipelines import lock as lock_module
from labelstore.pipelines.lock import is_locked, shared_lock, store_lock, try_store_lock
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


# File systems without locks, and without a place for one


SHIM = """
#include <errno.h>
#include <stdlib.h>
int flock(int descriptor, int how) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.fixture(scope="session")
def no_flock(tmp_path_factory):
    """A library that takes flock's place in any program, as a file system without locks has it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c"], check=True)
    return folder / "shim.so"


@pytest.mark.parametrize("code", NO_LOCKS)
def test_every_command_works_where_the_file_system_has_no_locks(no_flock, pictures, tmp_path, code, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", str(no_flock))
    monkeypatch.setenv("FLOCK_ERRNO", str(code))
    store = tmp_path / "labels.zarr"
    warning = f"Warning: {store}: this file system has no locks (flock)"
    for command in (["annotate", pictures, "--store", store, *TOY], ["verify", store], ["repair", store]):
        shown = run_installed(*command)
        assert shown.code == 0, shown.err
        told = [line for line in shown.err.splitlines() if line.startswith("Warning")]
        assert [line.startswith(warning) for line in told] == ([] if command[0] == "verify" else [True])
    assert not (store / LOCK).exists()


@pytest.mark.parametrize("code", NO_LOCKS)
@pytest.mark.parametrize("lock", [store_lock, shared_lock])
def test_a_lock_that_cannot_be_is_warned_of(tmp_path, monkeypatch, code, lock):
    def refused(*_) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.warns(UnlockedStoreWarning, match="no locks .flock."), lock(str(tmp_path / "labels.zarr")):
        assert not is_locked(str(tmp_path / "labels.zarr"))
    assert not (tmp_path / "labels.zarr" / LOCK).exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.ESTALE])
def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch, code):
    def failing(*_) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", failing)
    store = str(tmp_path / "labels.zarr")
    with pytest.raises(StoreWriteError, match=f"cannot be locked: {os.strerror(code)}"), store_lock(store):
        pass
    assert not is_locked(store)


def test_nfs_locks_a_file_for_one_alone_only_if_it_is_open_for_writing(owner, tmp_path, monkeypatch):
    """There flock is the lock of a range of bytes, which asks for that."""
    plain = fcntl.flock

    def as_on_nfs(descriptor: int, how: int) -> None:
        if how & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        plain(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    assert is_locked(str(tmp_path / "labels.zarr"))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert not is_locked(str(tmp_path / "labels.zarr"))


@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/labels.zarr", "/proc/self/labels.zarr", "/sys/x.zarr", "/dev/null/x"])
def test_a_place_where_nothing_can_be_made_is_an_error_at_once(path):
    with pytest.raises(StoreWriteError, match=f"{path}: cannot be written: "), store_lock(path):
        pass


def test_a_lock_that_is_removed_again_and_again_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_is_still_there", lambda *_: False)
    with pytest.raises(StoreWriteError, match="removed as soon as it is made"), store_lock(str(tmp_path / "labels.zarr")):
        pass


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket", "loop"])
def test_what_is_no_file_in_the_place_of_the_lock(tmp_path, kind):
    store = tmp_path / "labels.zarr"
    store.mkdir()
    (tmp_path / "mine").write_text("mine")
    if kind == "pipe":
        os.mkfifo(store / LOCK)
    elif kind == "folder":
        (store / LOCK).mkdir()
    elif kind == "socket":
        monkey = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(store)
        monkey.bind(LOCK)
        os.chdir(here)
        monkey.close()
    else:
        (store / LOCK).symlink_to(tmp_path / "mine" if kind == "link" else LOCK)
    assert not is_locked(str(store))
    with pytest.raises(StoreWriteError, match="expected a file, found"), store_lock(str(store)):
        pass
    assert os.path.lexists(store / LOCK)
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_lock_of_a_store_that_was_put_in_its_place_stays(tmp_path):
    store = tmp_path / "labels.zarr"
    with store_lock(str(store)):
        store.rename(tmp_path / "moved")
        store.mkdir()
        (store / LOCK).write_text("another's")
    assert (store / LOCK).read_text() == "another's"
