"""Where a store's files go: a local folder, durably, or anything that zarr-python opens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from labelstore.pipelines.folder import StoreFolder, sync_folder
from labelstore.storage import PARTIAL, local_path
from labelstore.storage.patient_store import delete_object, open_place


class Sink(Protocol):
    """Files by key, ``<array>/<file>``; a folder's ends in a slash.

    What `put` and `delete` have done is on the disk once `flush` returns.
    """

    def put(self, files: Mapping[str, bytes]) -> None:
        """Bring files to the store, each whole or not at all, in any order."""
        ...

    def delete(self, key: str) -> bool:
        """Remove a file; return whether there was one."""
        ...

    def move(self, key: str, new: str) -> bool:
        """Rename a file inside its folder, in the place of another; return whether there was one."""
        ...

    def flush(self, keys: Iterable[str]) -> None:
        """Make the names of files, and that others are gone, durable."""
        ...


class LocalSink:
    """A folder. Files are written under other names, brought to the disk together, and renamed; never through a link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, files: Mapping[str, bytes]) -> None:
        """See `Sink.put`."""
        partials = {key: f"{key}.{uuid.uuid4().hex}{PARTIAL}" for key in files}
        with StoreFolder(self._root) as folder:
            try:
                for key, data in files.items():
                    folder.create(partials[key], data)
                for partial in partials.values():  # all are written by now: the disk takes them in one go
                    folder.sync_file(partial)
                for key, partial in partials.items():
                    folder.rename(partial, key)
            except BaseException:
                for partial in partials.values():
                    with contextlib.suppress(OSError):
                        folder.remove(partial)
                raise

    def delete(self, key: str) -> bool:
        """See `Sink.delete`."""
        with StoreFolder(self._root) as folder:
            return folder.remove(key)

    def move(self, key: str, new: str) -> bool:
        """See `Sink.move`."""
        with StoreFolder(self._root) as folder:
            if folder.kind(key) is None:
                return False
            folder.rename(key, new)
        return True

    def flush(self, keys: Iterable[str]) -> None:
        """See `Sink.flush`."""
        with StoreFolder(self._root) as folder:
            for array in {key.rpartition("/")[0] for key in keys}:
                folder.sync(array)


class ZarrSink:
    """A store behind a URL. Objects appear whole; they are durable when the server says so."""

    def __init__(self, location: str) -> None:
        self._path = open_place(location)  # not the group's: its metadata may be what is to be mended

    def put(self, files: Mapping[str, bytes]) -> None:
        """See `Sink.put`."""
        buffer = default_buffer_prototype().buffer

        async def all_of_them() -> None:
            await asyncio.gather(*((self._path / key).set(buffer.from_bytes(data)) for key, data in files.items()))

        sync(all_of_them())

    def delete(self, key: str) -> bool:
        """See `Sink.delete`."""
        file = self._path / key
        there = (
            sync(file.get(default_buffer_prototype(), RangeByteRequest(0, 1))) is not None
        )  # no listing that is kept says it
        if there:
            sync(delete_object(file))
        return there

    def move(self, key: str, new: str) -> bool:
        """See `Sink.move`; a copy, and only then the removal."""
        found = sync((self._path / key).get(default_buffer_prototype()))
        if found is None:
            return False
        sync((self._path / new).set(found))
        return self.delete(key)

    def flush(self, keys: Iterable[str]) -> None:
        """See `Sink.flush`."""


def open_sink(location: str) -> Sink:
    """Return the sink of a store that exists."""
    path = local_path(location)
    return LocalSink(path) if path is not None else ZarrSink(location)


def sync_tree(path: Path) -> None:
    """Bring a folder, all that is below it, and its name to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_path(Path(folder) / name)
        sync_path(Path(folder))
    sync_path(path.absolute().parent)


def sync_path(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_folder(descriptor) if path.is_dir() else os.fsync(descriptor)
    finally:
        os.close(descriptor)
