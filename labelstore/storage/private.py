"""Folders and files of a cache: this user's alone. What another user can write there would be served as labels."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labelstore.errors import CacheError


def private_folder(option: str, folder: str | Path) -> Path:
    """Return a folder that is this user's alone (mode 0700): the given one, if it is or if it is made here, or else one in it.

    Parameters
    ----------
    option
        What the caller calls it.
    folder
        Any folder, such as ``/dev/shm``: in one that others may look into, ``labelstore-UID`` is made.

    Raises
    ------
    CacheError
        It cannot be made, or somebody else has made it.
    """
    given = Path(folder)
    try:
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(given.stat()):
            return given
        own = given / f"labelstore-{os.geteuid()}"
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
    except OSError as error:
        raise CacheError(f"{option}: expected a folder that can be written, got {given}: {error.strerror}") from error
    if not _is_private(found):
        expected = f"a folder of this user's alone (uid {os.geteuid()}, mode 0700)"
        raise CacheError(f"{option}: expected {expected}, got {_told(own, found)}; remove it, or give another folder")
    return own


def open_private(option: str, file: Path) -> tuple[int, bool]:
    """Open a file of this user's, made if it is not there; for reading alone where it may not be written.

    Returns
    -------
    int, bool
        The descriptor, and whether it may be written.

    Raises
    ------
    CacheError
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd, writable = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o600), True
    except OSError as error:
        try:
            fd, writable = os.open(file, os.O_RDONLY | flags), False
        except OSError:
            told = f"{option}: expected a folder that can be written, got {file.parent}: {error.strerror}"
            raise CacheError(told) from error
    try:
        found = os.fstat(fd)
    except OSError as error:
        os.close(fd)
        raise CacheError(f"{option}: {file}: cannot be looked at: {error.strerror}") from error
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise CacheError(f"{option}: expected a file of uid {os.geteuid()}, got {_told(file, found)}; remove it")
    return fd, writable


def _told(path: Path, found: os.stat_result) -> str:
    return f"{path}: {stat.filemode(found.st_mode)}, uid {found.st_uid}"


def _is_private(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
