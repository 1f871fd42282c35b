"""A local store's folder, worked in by descriptors: no link leads out of it, and only a store's own names are removed.

Every step below the root is taken relative to an open folder, with ``O_NOFOLLOW``: an array's folder that is a link, now or a
moment later, is refused. The root itself may be reached through links: the user has named it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from labelstore.errors import FormatError, StoreWriteError
from labelstore.schema import IDS_ARRAY, StoreInfo, index_arrays
from labelstore.storage import LOCK, is_partial

METADATA = "zarr.json"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = re.compile(r"c(\.(0|[1-9][0-9]{0,11}))+")
_ARRAY = re.compile(r"[a-z][a-z0-9_]*")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What fsync of a folder says on file systems that know no such thing; the folder's names are then theirs to keep."""


class Entry(NamedTuple):
    """A name in a folder, and what it is: ``file``, ``folder``, ``link``, ``pipe``, ``socket`` or ``device``."""

    name: str
    kind: str


class StoreFolder:
    """A store's folder and its arrays', held open. Not for several threads.

    Keys are ``<file>``, ``<array>/<file>``, and ``<array>/`` for the folder itself.

    Parameters
    ----------
    links
        Whether to go through links below the root as well. Only to read.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such folder.
    """

    def __init__(self, root: Path, links: bool = False) -> None:
        self._root, self._links = root, links
        self._no_follow = 0 if links else os.O_NOFOLLOW
        self._open = {"": os.open(root, _FOLDER)}

    def __enter__(self) -> StoreFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def entries(self, array: str = "") -> list[Entry]:
        """List the root, or an array's folder, in order of names; what is removed meanwhile is left out."""
        with os.scandir(self._folder(array)) as entries:
            names = sorted(entry.name for entry in entries)
        kinds = ((name, self.kind(f"{array}/{name}" if array else name)) for name in names)
        return [Entry(name, kind) for name, kind in kinds if kind is not None]

    def kind(self, key: str) -> str | None:
        """Return what a key is; None where there is nothing."""
        try:
            folder, name = self._place(key)
            return _kind(os.stat(name, dir_fd=folder, follow_symlinks=self._links).st_mode)
        except FileNotFoundError:
            return None

    def open(self, key: str, flags: int, mode: int = 0o666) -> int:
        """Open a file, which is no link; a pipe is not waited for."""
        folder, name = self._place(key)
        return os.open(name, flags | os.O_CLOEXEC | self._no_follow | os.O_NONBLOCK, mode, dir_fd=folder)

    def create(self, key: str, data: bytes) -> None:
        """Write a file that is not there yet. A folder for an array's metadata is made where there is none."""
        array, _, name = key.rpartition("/")
        if array and name.startswith(METADATA) and self.kind(array) is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(array, dir_fd=self._open[""])
        with os.fdopen(self.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as out:
            out.write(data)

    def sync_file(self, key: str) -> None:
        """Bring a file's content to the disk."""
        descriptor = self.open(key, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, key: str, new: str) -> None:
        """Rename a file inside its folder; a file that has the new name is replaced."""
        folder, name = self._place(key)
        os.replace(name, new.rpartition("/")[2], src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, key: str) -> bool:
        """Remove a plain file, or an empty folder; return whether there was one.

        Raises
        ------
        StoreWriteError
            There is a link, a pipe or a device, or the way there is one: nothing is removed.
        """
        kind, wanted = self.kind(key), "folder" if key.endswith("/") else "file"
        if kind is None:
            return False
        if kind != wanted:
            raise StoreWriteError(f"{self._root / key}: expected a {wanted} of the store's, found a {kind}, which is kept")
        folder, name = self._place(key)
        try:
            os.rmdir(name, dir_fd=folder) if wanted == "folder" else os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        return True

    def sync(self, array: str = "") -> None:
        """Bring the names in the root, or in an array's folder, to the disk."""
        sync_folder(self._folder(array))

    def _place(self, key: str) -> tuple[int, str]:
        array, _, name = key.removesuffix("/").rpartition("/")
        if name in ("", ".", ".."):
            raise ValueError(f"expected a key of a store, got {key!r}")
        return self._folder(array), name

    def _folder(self, array: str) -> int:
        found = self._open.get(array)
        if found is not None:
            return found
        if "/" in array or array in (".", ".."):
            raise ValueError(f"expected the name of an array, got {array!r}")
        try:
            descriptor = os.open(array, _FOLDER | self._no_follow, dir_fd=self._open[""])
        except OSError as error:
            kind = self.kind(array) if error.errno in (errno.ENOTDIR, errno.ELOOP) else None
            if kind is None or kind == "file":
                raise
            hint = "; nothing is read, written or removed behind links: link the whole store's folder, or bind-mount this one"
            raise StoreWriteError(
                f"{self._root / array}: expected a folder of the store's, found a {kind}{hint if kind == 'link' else ''}"
            ) from error
        self._open[array] = descriptor
        return descriptor


def is_own_name(name: str) -> bool:
    """Whether a file of an array's folder has a name that a store gives: metadata, a chunk's, one of a file half written."""
    return name == METADATA or _CHUNK.fullmatch(name) is not None or is_partial(name)


def remove_cut_off_creation(root: Path, info: StoreInfo) -> None:
    """Remove what the creation of a store has left that was cut off: its files of metadata, ids and labels by their names.

    The caller has seen that the group is marked as unfinished, or that the folder is blank. The lock stays. The group's
    metadata go last: cut off as well, this can be done again.

    Raises
    ------
    FormatError
        There is anything that no creation makes, a link among it; then nothing is removed.
    """
    with StoreFolder(root) as folder:
        keys = list(_remains(folder, root, info))
        for key in sorted(keys, key=lambda key: (key == METADATA, key.endswith("/"))):
            folder.remove(key)


def _remains(folder: StoreFolder, root: Path, info: StoreInfo) -> Iterator[str]:
    filled = {spec.name for spec in index_arrays(info)}
    for name, kind in folder.entries():
        if name == LOCK:
            continue
        if kind == "file" and (name == METADATA or is_partial(name)):
            yield name
            continue
        if kind != "folder" or not _ARRAY.fullmatch(name):
            raise _stranger(root / name, kind)
        for inside, its_kind in folder.entries(name):
            may_be = is_own_name(inside) if name in filled or IDS_ARRAY.fullmatch(name) else _is_metadata(inside)
            if its_kind != "file" or not may_be:
                raise _stranger(root / name / inside, its_kind)
            yield f"{name}/{inside}"
        yield f"{name}/"


def sync_folder(descriptor: int) -> None:
    """Bring an open folder's names to the disk, where its file system can be told to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _is_metadata(name: str) -> bool:
    return name == METADATA or is_partial(name)


def _stranger(path: Path, kind: str) -> FormatError:
    return FormatError(
        f"{path}: expected only what the creation of a store leaves that was cut off, found a {kind} of another's; nothing is "
        "removed. Move it away, or choose another --store"
    )


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "device")
