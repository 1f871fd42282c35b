"""One writer a store: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelstore.errors import StoreBusyError, StoreWriteError, UnlockedStoreWarning
from labelstore.storage import LOCK, local_path

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What `flock` says on file systems without it: NFS whose lock service is away, Lustre mounted without ``-o flock``."""
_MOST_TRIES = 1000
"""How often a lock that its owner has just removed is asked for again. Each time another process has finished its work."""


@contextmanager
def store_lock(location: str) -> Iterator[None]:
    """Hold a local store's lock: the kernel's on a file inside, which a killed process gives up at once.

    The file is removed in the end; one that is left behind locks nothing. A folder that was made for the lock alone, because
    there is no store yet, goes as well if nothing has come into it. Stores behind URLs are not locked, nor are those on a file
    system without locks, of which `UnlockedStoreWarning` says so.

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
        _remove(path, descriptor)
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
        with contextlib.suppress(OSError):
            if _lock(descriptor, fcntl.LOCK_EX) is not False:  # nobody else has a part of it
                _remove(path, descriptor)
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
    # NFS locks a file alone of others only where it is open for writing.
    for flags, how in ((os.O_RDWR, fcntl.LOCK_EX), (os.O_RDONLY, fcntl.LOCK_SH)):
        with contextlib.suppress(OSError):
            descriptor = _open_lock(path, flags)
            try:
                return _lock(descriptor, how) is False
            finally:
                os.close(descriptor)
    return False


def _acquire(path: Path, how: int = fcntl.LOCK_EX) -> tuple[bool, int]:
    """Return whether the folder was made, and the locked file."""
    made, gone = False, "the lock's file is removed as soon as it is made"
    for _ in range(_MOST_TRIES):
        try:
            made |= _make_folder(path)
            descriptor = _open_lock(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError as error:
            gone = f"{error.strerror}: nothing can be made there"
            continue  # another process had made the folder for its lock, and has just removed it
        except OSError as error:
            if isinstance(error, StoreWriteError):
                raise
            raise StoreWriteError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            got = _lock(descriptor, how)
        except OSError as error:
            os.close(descriptor)
            raise StoreWriteError(f"{path}: cannot be locked: {error.strerror}") from error
        if got is False:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise StoreBusyError(f"{path}: {owner} is writing to this store; wait for it, or end it, and try again")
        if _is_still_there(path / LOCK, descriptor):
            if got is None:
                _warn_unlocked(path)
            _sign(descriptor)
            return made, descriptor
        os.close(descriptor)  # its owner has just removed it: another may have made a new one
    raise StoreWriteError(f"{path}: cannot be written: {gone}")


def _open_lock(path: Path, flags: int) -> int:
    """Open the lock's file, which is made with ``O_CREAT``; a pipe in its place is not waited for.

    Raises
    ------
    StoreWriteError
        It is a link, a pipe, or a device.
    """
    try:
        descriptor = os.open(path / LOCK, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise StoreWriteError(f"{path / LOCK}: expected a file, found something else: {error.strerror}") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreWriteError(f"{path / LOCK}: expected a file, found a pipe or a device")
    return descriptor


def _remove(path: Path, descriptor: int) -> None:
    """Remove the lock's file, if it is still the one that is held."""
    with contextlib.suppress(OSError):
        if _is_still_there(path / LOCK, descriptor):  # not that of a store which was put here meanwhile
            (path / LOCK).unlink()


def _warn_unlocked(path: Path) -> None:
    warnings.warn(
        f"{path}: this file system has no locks (flock), so nothing keeps a second run from writing to the store at the same "
        "time; see that there is one only",
        UnlockedStoreWarning,
        stacklevel=2,
    )


def _make_folder(path: Path) -> bool:
    """Make a folder if there is none; return whether it was made."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def _lock(descriptor: int, how: int) -> bool | None:
    """Lock an open file; return whether that was possible, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _is_still_there(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
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
