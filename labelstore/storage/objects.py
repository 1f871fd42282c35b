"""Parts of objects behind a URL, many at the same time: zarr-python's stores, with patience, in threads and forks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from labelstore.errors import LabelStoreError, StoreReadError
from labelstore.storage.patient_store import AT_ONCE, access_refused, open_place


class Part(NamedTuple):
    """Bytes ``start`` to ``stop`` of an object, by its key below the store; less where the object ends before."""

    key: str
    start: int
    stop: int


class SealedFile(NamedTuple):
    """A file of a committed shard: its key, length, and the crc32c of all of it."""

    key: str
    length: int
    crc32c: int


class Objects:
    """The objects below a URL. Threads share it; a forked child makes its own connections."""

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self._opened: tuple[int, StorePath] | None = None

    def fetch(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Return parts of objects; None for those of which there is no object.

        Raises
        ------
        StoreReadError
            The server does not answer, or refuses to.
        MissingExtraError
        """
        try:
            place = self._place()
            asked = list(dict.fromkeys(parts))
            found = dict(zip(asked, sync(_fetch(place, asked)), strict=True))
        except LabelStoreError:
            raise
        except PermissionError as error:
            raise access_refused(self.location, error) from error
        except Exception as error:  # whatever the file system behind a URL raises
            raise StoreReadError(f"{self.location}: cannot be read: {error}") from error
        return [found[part] for part in parts]

    def _place(self) -> StorePath:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            opened = self._opened = os.getpid(), open_place(self.location)
        return opened[1]


async def _fetch(place: StorePath, parts: Sequence[Part]) -> list[bytes | None]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(part: Part) -> bytes | None:
        async with limit:
            found = await (place / part.key).get(default_buffer_prototype(), RangeByteRequest(part.start, part.stop))
        return None if found is None else _cut(found.to_bytes(), part)

    return await asyncio.gather(*map(one, parts))


def _cut(data: bytes, part: Part) -> bytes:
    """Return what was asked for, of a server that knows no ranges and has sent all there is."""
    return data if len(data) <= part.stop - part.start else data[part.start : part.stop]
