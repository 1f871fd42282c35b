"""Stores behind URLs, as zarr-python opens them, with patience: a server that is away for a while is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, StorePath, WrapperStore
from zarr.storage._common import make_store_path

from labelstore.errors import MissingExtraError, StoreReadError
from labelstore.storage.patience import SECONDS, SECONDS_AT_FIRST, patiently

AT_ONCE = 64
"""Requests on their way at the same time."""
_S3 = ("s3://", "s3a://")
T = TypeVar("T")


def open_place(location: str) -> StorePath:
    """Return what zarr-python reads and writes a URL, or path, with. Nothing need be there yet.

    Raises
    ------
    MissingExtraError
    """
    try:
        path = sync(make_store_path(location, storage_options=_connections() if location.startswith(_S3) else None))
    except ImportError as error:
        raise MissingExtraError(f"{location}: needs more: pip install 'labelstore[s3]' ({error})") from error
    return StorePath(PatientStore(path.store), path.path)


def file_system(place: StorePath) -> tuple[Any, str] | None:
    """Return the asynchronous file system of fsspec's below a place, and the place's path there; None where it is no such."""
    store = place.store._store if isinstance(place.store, PatientStore) else place.store
    if not isinstance(store, FsspecStore):
        return None
    return store.fs, "/".join(part for part in (store.path, place.path) if part)


async def delete_object(place: StorePath) -> None:
    """Delete one object by its exact name; zarr-python's own way takes ``*`` and ``[`` in it for a pattern."""
    found = file_system(place)
    if found is None:
        await place.delete()
        return
    system, path = found

    async def delete() -> None:
        with contextlib.suppress(FileNotFoundError):
            await system._rm_file(path)

    await patiently(delete)


def _connections() -> dict[str, Any]:
    """Options of a client of S3, which keeps ten connections unless it is told; the user's own ones stay."""
    from fsspec.config import conf

    return {"config_kwargs": {"max_pool_connections": AT_ONCE, **conf.get("s3", {}).get("config_kwargs", {})}}


def access_refused(location: str, error: PermissionError) -> StoreReadError:
    """Say what to do about a server that lets nobody in."""
    hint = "give the right credentials: for S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    return StoreReadError(f"{location}: access is refused: {error}; {hint}")


class PatientStore(WrapperStore[Store]):
    """A store each of whose requests is tried again as long as that may help; see `labelstore.storage.patience`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._answered = False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `zarr.abc.store.Store.get`."""
        return await self._patiently(lambda: self._store.get(key, prototype, byte_range))

    async def getsize(self, key: str) -> int:
        """See `zarr.abc.store.Store.getsize`."""
        return await self._patiently(lambda: self._store.getsize(key))

    async def exists(self, key: str) -> bool:
        """See `zarr.abc.store.Store.exists`."""
        return await self._patiently(lambda: self._store.exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.Store.set`."""
        await self._patiently(lambda: self._store.set(key, value))

    async def delete(self, key: str) -> None:
        """See `zarr.abc.store.Store.delete`."""
        await self._patiently(lambda: self._store.delete(key))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.Store.set_if_not_exists`."""
        await self._patiently(lambda: self._store.set_if_not_exists(key, value))

    async def delete_dir(self, prefix: str) -> None:
        """See `zarr.abc.store.Store.delete_dir`."""
        await self._patiently(lambda: self._store.delete_dir(prefix))

    async def is_empty(self, prefix: str) -> bool:
        """See `zarr.abc.store.Store.is_empty`."""
        return await self._patiently(lambda: self._store.is_empty(prefix))

    def list(self) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list`."""
        return self._listed(self._store.list)

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list_prefix`."""
        return self._listed(lambda: self._store.list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list_dir`."""
        return self._listed(lambda: self._store.list_dir(prefix))

    async def _listed(self, begin: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
        """All names, of a listing that is begun again if it is cut off."""

        async def at_once() -> tuple[str, ...]:
            return tuple([key async for key in begin()])

        for key in await self._patiently(at_once):
            yield key

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        found = await patiently(call, SECONDS if self._answered else SECONDS_AT_FIRST)
        self._answered = True
        return found
