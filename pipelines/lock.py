"""One writer a store: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelstore.errors import StoreBusyError, StoreWriteError
from labelstore.storage import LOCK, local_path


@contextmanager
def store_lock(location: str) -> Iterator[None]:
    """Hold a local store's lock: the kernel's on a file inside, which a killed process gives up at once.

    The file is removed in the end; one that is left behind locks nothing. A folder that was made for the lock alone, because
    there is no store yet, goes as well if nothing has come into it. Stores behind URLs are not locked.

    Raises
    ------
    StoreBusyError
        Another process writes to this store; the message says which.
    StoreWriteError
        There is no place for the lock: a read-only disk, say.
    """
    path = local_path(location)
    if path is None:
        yield
        return
    made, descriptor = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (path / LOCK).unlink()
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextmanager
def shared_lock(location: str) -> Iterator[None]:
    """Hold a part of a local store's lock: several processes may, each with shards of its own, and none that needs all of it.

    The last one removes the file. Raises as `store_lock` does.
    """
    path = local_path(location)
    if path is None:
        yield
        return
    _, descriptor = _acquire(path, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if _lock(descriptor, fcntl.LOCK_EX):  # nobody else has a part of it
            with contextlib.suppress(OSError):
                (path / LOCK).unlink()
        os.close(descriptor)


@contextmanager
def try_store_lock(location: str) -> Iterator[StoreWriteError | None]:
    """Hold a store's lock, or say why that cannot be: who only reads may go on."""
    with contextlib.ExitStack() as stack:
        problem = None
        try:
            stack.enter_context(store_lock(location))
        except StoreWriteError as error:
            problem = error
        yield problem


def is_locked(location: str) -> bool:
    """Whether a process is writing to a store."""
    path = local_path(location)
    if path is None:
        return False
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _acquire(path: Path, how: int = fcntl.LOCK_EX) -> tuple[bool, int]:
    """Return whether the folder was made, and the locked file."""
    made = False
    while True:
        try:
            made |= _make_folder(path)
            descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue  # whoever had made the folder for his lock has just removed it
        except OSError as error:
            raise StoreWriteError(f"{path}: cannot be written: {error.strerror}") from error
        if not _lock(descriptor, how):
            owner = _owner(descriptor)
            os.close(descriptor)
            raise StoreBusyError(f"{path}: {owner} is writing to this store; wait for it, or end it, and try again")
        if _is_still_there(path / LOCK, descriptor):
            _sign(descriptor)
            return made, descriptor
        os.close(descriptor)  # the one who held it has just removed it: another may have made a new one


def _make_folder(path: Path) -> bool:
    """Make a folder if there is none; return whether it was made."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Say who holds the lock. For messages alone: on a full disk the lock holds all the same."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(owner['pid'])} on {owner['host']!s:.80} (since {owner['since']!s:.30})"
    except (ValueError, KeyError, TypeError, OSError):
        return "another process"
