"""All of a store's files by key, as they lie there: for who checks, mends or copies a store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from labelstore.errors import DamagedError, RunError
from labelstore.pipelines.folder import Entry, StoreFolder
from labelstore.storage import local_path

_DAMAGE = (errno.EIO, errno.ELOOP, errno.EUCLEAN, errno.EBADMSG)
"""What reading a file says where it is the file that is wrong, or the disk below it."""


class StoreFiles(Protocol):
    """Reads files by key, ``<array>/<file>``. Can be pickled."""

    def entries(self) -> Iterator[Entry]:
        """List all that is there by key, also what is none of a store's.

        Of a local store, the root and the folders in it: a folder below these, or an empty one, is one entry, and so is a link
        to a folder. A folder's key ends in a slash.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """Return a file's content; None if there is no such file.

        Raises
        ------
        OSError
            It is damaged: the disk cannot read it, or it is no file.
        RunError
            It cannot be read for another reason, of which the store knows nothing: rights, a network.
        """
        ...


class LocalFiles:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> Iterator[Entry]:
        """See `StoreFiles.entries`."""
        try:
            with StoreFolder(self._root) as folder:
                for name, kind in folder.entries():
                    if kind == "folder":
                        yield from _inside(folder, name)
                    else:
                        yield Entry(name, kind)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(str(self._root), error) from error

    def read(self, key: str) -> bytes | None:
        """See `StoreFiles.read`."""
        path = self._root / key
        try:
            if path.exists() and not path.is_file():
                raise DamagedError(f"{key}: expected a file")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if isinstance(error, DamagedError) or error.errno in _DAMAGE:
                raise
            raise _unreadable(str(path), error) from error


class ZarrFiles:
    """Whatever zarr-python opens."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._start()

    def _start(self) -> None:
        from labelstore.storage.patient_store import open_place  # zarr costs a quarter of a second: only where needed

        self._store = open_place(self._location).store

    def __reduce__(self) -> tuple[type[ZarrFiles], tuple[str]]:
        return ZarrFiles, (self._location,)

    def entries(self) -> Iterator[Entry]:
        """See `StoreFiles.entries`."""
        from zarr.core.sync import sync

        async def listed() -> list[Entry]:
            return [Entry(key, "file") async for key in self._store.list()]

        try:
            yield from sync(listed())
        except Exception as error:
            raise _unreadable(self._location, error) from error

    def read(self, key: str) -> bytes | None:
        """See `StoreFiles.read`."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        try:
            found = sync(self._store.get(key, default_buffer_prototype()))
        except Exception as error:  # whatever the file system behind it raises
            raise _unreadable(f"{self._location}/{key}", error) from error
        return None if found is None else found.to_bytes()


def _inside(folder: StoreFolder, name: str) -> Iterator[Entry]:
    try:
        inside = folder.entries(name)
    except (FileNotFoundError, NotADirectoryError):  # a run has removed it just now
        return
    if not inside:
        yield Entry(f"{name}/", "folder")
    for entry in inside:
        yield Entry(f"{name}/{entry.name}{'/' if entry.kind == 'folder' else ''}", entry.kind)


def store_files(location: str) -> StoreFiles:
    """Return the files of what lies at a path or URL."""
    path = local_path(location)
    return LocalFiles(path) if path is not None else ZarrFiles(location)


def _unreadable(what: str, error: Exception) -> RunError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return RunError(f"{what}: cannot be read: {reason}. That says nothing of what is there, and nothing was changed")
