"""The group's ``zarr.json``, the file that says what a store is: of two runs that write it one wins, and the other is told."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from labelstore.errors import StoreBusyError
from labelstore.pipelines.folder import METADATA
from labelstore.pipelines.sink import LocalSink, Sink, sync_path
from labelstore.pipelines.store_files import store_files
from labelstore.storage import PARTIAL, local_path
from labelstore.storage.documents import MOST_BYTES
from labelstore.storage.patience import patiently, with_causes
from labelstore.storage.patient_store import file_system, open_place

GROUP = METADATA
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_REFUSED, _NOT_KNOWN = (409, 412), 501


class GroupFile(Protocol):
    """The file. What was read or written last is what the next `replace` goes by."""

    def read(self) -> bytes | None:
        """Return its content; None if there is no such file."""
        ...

    def create(self, data: bytes) -> None:
        """Write it where there is none, durably.

        Raises
        ------
        FileExistsError
            There is one.
        """
        ...

    def require_unchanged(self) -> None:
        """Make sure that it is what was read or written last. Raises as `replace` does."""
        ...

    def replace(self, data: bytes) -> None:
        """Write it over what was read or written last, durably.

        Raises
        ------
        StoreBusyError
            It is another one by now.
        """
        ...


class GuardedSink:
    """A sink that takes files only while the group's file is what this run has read or written.

    Files that are new to a store must not come from two runs: the one whose claim another has taken over stops here.
    """

    def __init__(self, sink: Sink, group: GroupFile) -> None:
        self._sink, self._group = sink, group

    def put(self, files: Mapping[str, bytes]) -> None:
        """See `Sink.put`. Raises as `GroupFile.require_unchanged` does."""
        self._group.require_unchanged()
        self._sink.put(files)

    def delete(self, key: str) -> bool:
        """See `Sink.delete`."""
        return self._sink.delete(key)

    def move(self, key: str, new: str) -> bool:
        """See `Sink.move`."""
        return self._sink.move(key, new)

    def flush(self, keys: Iterable[str]) -> None:
        """See `Sink.flush`."""
        self._sink.flush(keys)


@contextlib.contextmanager
def withdrawn_on_failure(location: str, group: GroupFile, data: bytes) -> Iterator[None]:
    """Write the group's file without this run's claim if something goes wrong: nobody has to wait for it then.

    Where a store is locked there are no claims, and nothing is written.
    """
    try:
        yield
    except BaseException:
        if local_path(location) is None:
            with contextlib.suppress(Exception):
                group.replace(data)
        raise


class LocalGroupFile:
    """In a folder. The store's lock keeps others out; where nothing can be locked, this does as well as it can."""

    def __init__(self, root: Path) -> None:
        self._root, self._files, self._seen = root, store_files(str(root)), b""

    def read(self) -> bytes | None:
        """See `GroupFile.read`."""
        found = self._files.read(GROUP, MOST_BYTES)
        self._seen = found or b""
        return found

    def create(self, data: bytes) -> None:
        """See `GroupFile.create`."""
        partial = self._root / f"{GROUP}.{uuid.uuid4().hex}{PARTIAL}"
        try:
            partial.write_bytes(data)
            sync_path(partial)
            _link(partial, self._root / GROUP)
            sync_path(self._root)
        finally:
            partial.unlink(missing_ok=True)
        self._seen = data

    def require_unchanged(self) -> None:
        """See `GroupFile.require_unchanged`."""
        if self._files.read(GROUP, MOST_BYTES) != self._seen:
            raise _changed(str(self._root))

    def replace(self, data: bytes) -> None:
        """See `GroupFile.replace`."""
        self.require_unchanged()
        sink = LocalSink(self._root)
        sink.put({GROUP: data})
        sink.flush([GROUP])
        self._seen = data


class ObjectGroupFile:
    """Behind a URL: by conditional requests where the server knows them (S3; Google's storage, where a file is made anew), else
    by a look at what is there just before."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._place = open_place(location) / GROUP
        self._system = file_system(self._place)
        self._seen, self._tag = b"", ""

    def read(self) -> bytes | None:
        """See `GroupFile.read`."""
        found, self._tag = self._fetch()
        self._seen = found or b""
        return found

    def _fetch(self) -> tuple[bytes | None, str]:
        tag = sync(patiently(self._read_tag))  # before the content: if it is older than that, nothing is replaced
        found = sync(self._place.get(default_buffer_prototype()))
        return (None if found is None else found.to_bytes()), tag

    def create(self, data: bytes) -> None:
        """See `GroupFile.create`."""
        if self.read() is not None or not self._won(lambda: self._put_new(data), data):
            raise FileExistsError(errno.EEXIST, "made by another run at this moment", self._location)

    def require_unchanged(self) -> None:
        """See `GroupFile.require_unchanged`."""
        found, tag = self._fetch()
        if found != self._seen:  # what others have written is not taken for seen: it must not be replaced
            raise _changed(self._location)
        self._tag = tag

    def replace(self, data: bytes) -> None:
        """See `GroupFile.replace`."""
        self.require_unchanged()
        tag = self._tag  # of what has just been found the same
        if not self._won(lambda: self._put_over(data, tag), data):
            raise _changed(self._location)

    def _won(self, put: Callable[[], Awaitable[Any]], data: bytes) -> bool:
        """Write; return whether it is there. A refused request may be one whose first answer got lost: only a look tells."""
        try:
            sync(patiently(put))
        except Exception as error:  # whatever the file system behind a URL raises
            if not any(map(_is_refused, with_causes(error))):
                raise
        found, tag = self._fetch()
        if found != data:
            return False
        self._seen, self._tag = data, tag
        return True

    async def _read_tag(self) -> str:
        if self._system is None or not self._is_s3:
            return ""
        system, path = self._system
        try:
            found: dict[str, Any] = await system._info(path, refresh=True)
        except FileNotFoundError:
            return ""
        return str(found.get("ETag") or "")

    async def _put_new(self, data: bytes) -> None:
        if self._system is None:
            await self._place.set_if_not_exists(default_buffer_prototype().buffer.from_bytes(data))
        elif self._is_s3:
            await self._conditionally(data, IfNoneMatch="*")
        else:
            system, path = self._system
            with _where_known() as known:
                await system._pipe_file(path, data, mode="create")
            if not known():
                await system._pipe_file(path, data)

    async def _put_over(self, data: bytes, tag: str) -> None:
        if self._system is not None and tag:
            await self._conditionally(data, IfMatch=tag)
        else:
            await self._place.set(default_buffer_prototype().buffer.from_bytes(data))

    async def _conditionally(self, data: bytes, **condition: str) -> None:
        """A request that S3's servers refuse if the condition is not met; without it where they do not know any."""
        assert self._system is not None
        system, path = self._system
        try:
            await system._pipe_file(path, data, **condition)
        except Exception as error:
            if _NOT_KNOWN not in map(_status, with_causes(error)):
                raise
            await system._pipe_file(path, data)

    @property
    def _is_s3(self) -> bool:
        protocol = self._system[0].protocol if self._system is not None else ()
        return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


def open_group_file(location: str) -> GroupFile:
    """Return the file of what is, or is to be, at a path or URL."""
    path = local_path(location)
    return LocalGroupFile(path) if path is not None else ObjectGroupFile(location)


def attributes_of(data: bytes) -> dict[str, Any] | None:
    """Return the attributes of the group that a ``zarr.json`` is of; None if it is of none."""
    try:
        attributes = json.loads(data)["attributes"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return attributes if isinstance(attributes, dict) else None


def _link(partial: Path, target: Path) -> None:
    """Give a file its name if that is free."""
    try:
        os.link(partial, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        partial.rename(target)


@contextlib.contextmanager
def _where_known() -> Iterator[Callable[[], bool]]:
    """Go on where a file system does not know an argument; what is yielded tells whether it does."""
    known = [True]
    try:
        yield lambda: known[0]
    except TypeError:
        known[0] = False


def _changed(location: str) -> StoreBusyError:
    return StoreBusyError(
        f"{location}: another run has changed what this store says of itself since this one looked at it; nothing was added. "
        "Run the same command again"
    )


def _status(error: BaseException) -> int | None:
    answer = getattr(error, "response", None)
    found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return found if isinstance(found, int) else None


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, FileExistsError) or _status(error) in _REFUSED
