"""All of a store's files by key, as they lie there: for checks, repairs and copies of a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from labelstore.errors import DamagedError, FormatError, RunError, StoreWriteError
from labelstore.pipelines.folder import Entry, StoreFolder
from labelstore.storage import local_path

_OF_THE_FILE = (errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG)
"""What reading says where the disk fails at this file. All else is the place's: rights, a server that is away."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class CannotReadError(RunError):
    """A file cannot be read now, which says nothing of its content: rights, a server that does not answer."""


class UnreadableFileError(CannotReadError):
    """The disk fails at this one file. It may be read again later, from another cable, or never."""


class StoreFiles(Protocol):
    """Reads files by key, ``<array>/<file>``. Can be pickled."""

    def entries(self) -> Iterator[Entry]:
        """List all that is there by key, also what is none of a store's.

        Of a local store, the root and the folders in it: a folder below these, or an empty one, is one entry, and so is a link
        to a folder. A folder's key ends in a slash.
        """
        ...

    def read(self, key: str, most: int) -> bytes | None:
        """Return a file's content; None if there is no such file.

        Raises
        ------
        DamagedError
            It is no file, or has more than ``most`` bytes; then it is not read.
        CannotReadError
            It cannot be read now.
        FormatError
            It lies behind a link.
        """
        ...


class LocalFiles:
    """A folder.

    Parameters
    ----------
    links
        Whether files are read behind links as well, as those of a store in the cache of the Hugging Face hub.
    """

    def __init__(self, root: Path, links: bool = False) -> None:
        self._root, self._links = root, links

    def entries(self) -> Iterator[Entry]:
        """See `StoreFiles.entries`."""
        try:
            with StoreFolder(self._root, self._links) as folder:
                for name, kind in folder.entries():
                    if kind == "folder":
                        yield from _inside(folder, name)
                    else:
                        yield Entry(name, kind)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _cannot_read(str(self._root), error) from error

    def read(self, key: str, most: int) -> bytes | None:
        """See `StoreFiles.read`."""
        try:
            with StoreFolder(self._root, self._links) as folder:
                return _content(folder.open(key, _FLAGS), key, most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedError:
            raise
        except StoreWriteError as error:  # the array's folder is none
            linked = (self._root / key).parent.is_symlink()
            raise (FormatError if linked else DamagedError)(str(error)) from error
        except OSError as error:
            if error.errno == errno.ELOOP and not self._links:
                found = "found a link, behind which nothing is read"
                raise FormatError(f"{self._root / key}: expected a file of the store's, {found}") from error
            if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket; links that lead nowhere
                raise DamagedError(f"{key}: expected a file, found something else") from error
            raise _cannot_read(str(self._root / key), error) from error


def _content(descriptor: int, key: str, most: int) -> bytes:
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{key}: expected a file")
        if found.st_size > most:
            raise DamagedError(f"{key}: expected at most {most:,} bytes, found {found.st_size:,}")
        with os.fdopen(os.dup(descriptor), "rb") as opened:
            return opened.read(most)
    finally:
        os.close(descriptor)


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
            raise _cannot_read(self._location, error) from error

    def read(self, key: str, most: int) -> bytes | None:
        """See `StoreFiles.read`."""
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        try:
            found = sync(self._store.get(key, default_buffer_prototype(), RangeByteRequest(0, most + 1)))
        except Exception as error:  # whatever the file system behind it raises
            raise _cannot_read(f"{self._location}/{key}", error) from error
        if found is not None and len(found) > most:
            raise DamagedError(f"{key}: expected at most {most:,} bytes, found more")
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


def store_files(location: str, links: bool = False) -> StoreFiles:
    """Return the files of what lies at a path or URL; see `LocalFiles` for ``links``."""
    path = local_path(location)
    return LocalFiles(path, links) if path is not None else ZarrFiles(location)


def _cannot_read(what: str, error: Exception) -> CannotReadError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    kind = UnreadableFileError if getattr(error, "errno", None) in _OF_THE_FILE else CannotReadError
    return kind(f"{what}: cannot be read: {reason}. That says nothing of what is there, and nothing was changed")
