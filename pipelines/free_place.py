"""Whether a store may be made behind a URL, where a folder would be: never over anything that is there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from zarr.core.sync import sync
from zarr.storage import StorePath

from labelstore.errors import FormatError, StoreBusyError
from labelstore.pipelines.claims import claim_in
from labelstore.pipelines.group_file import GROUP, GroupFile, attributes_of, open_group_file
from labelstore.schema import ATTRIBUTE, UNFINISHED
from labelstore.storage import local_path
from labelstore.storage.patience import patiently
from labelstore.storage.patient_store import file_system, open_place

_MOST_LOOKED_AT, _SHOWN = 1000, 3
_MARK = re.compile(r"mark\.[0-9a-f]{32}\.partial")
_INDEX_FILE = re.compile(r"c\.(0|[1-9][0-9]{0,11})(\.0)?")
_FILLED = {"ids", "targets"}
_ARRAYS = {"classes", "scores", "score_range", "spectra", "status", "errors", "image_crc32", "image_size", "commits", *_FILLED}


def require_free(location: str) -> None:
    """Refuse a URL below which there is anything but what a creation has left that was cut off.

    Raises
    ------
    FormatError
        With some of what is there. A store counts, finished or not, and so do the files of one that has lost its
        ``zarr.json``.
    StoreBusyError
        Another run is creating a store there.
    """
    if local_path(location) is None:
        find_remains(location, open_group_file(location))


def find_remains(location: str, group: GroupFile) -> list[str]:
    """Return the keys, but for the group's, that a creation has left which was cut off; else as `require_free`."""
    data = group.read()
    attributes = {} if data is None else attributes_of(data)
    unfinished = attributes is not None and UNFINISHED in attributes
    if data is not None and not unfinished:
        what = "a label store" if attributes and ATTRIBUTE in attributes else f"another program's {GROUP}"
        raise FormatError(f"{location}: expected nothing or a creation that was cut off, found {what}; choose another --store")
    claim = claim_in(attributes or {})
    if claim is not None and claim.holds:
        raise StoreBusyError(
            f"{location}: {claim} is creating this store; wait for it. If it was cut off, this is possible some minutes later"
        )
    place = open_place(location)
    remains, strangers = sync(patiently(lambda: _look_through(place, unfinished)))
    if strangers:
        raise FormatError(
            f"{location}: expected nothing or a creation that was cut off, found {_some(strangers)}; nothing was changed. "
            "Choose another --store"
        )
    return remains


def is_remains(key: str) -> bool:
    """Whether a creation that was cut off may have left a file: no map, and no commit, is ever of one."""
    folder, _, name = key.rpartition("/")
    if name == GROUP:
        return folder in _ARRAYS
    return folder in _FILLED and _INDEX_FILE.fullmatch(name) is not None


async def _look_through(place: StorePath, unfinished: bool) -> tuple[list[str], list[str]]:
    """Return the keys of remains, and those of other things; no more than a thousand where there are any of these."""
    remains: list[str] = []
    strangers: list[str] = []
    async for number, key in _numbered(_keys(place)):
        if unfinished and is_remains(key):
            remains.append(key)
        elif key not in ("", GROUP) and not _MARK.fullmatch(key):
            strangers.append(key)
        if strangers and number >= _MOST_LOOKED_AT:
            break
    return remains, strangers


async def _keys(place: StorePath) -> AsyncIterator[str]:
    """Yield the keys of objects as they are listed; of S3 page by page, of others folder by folder."""
    found = file_system(place)
    if found is None:
        async for key in place.store.list_prefix(f"{place.path}/" if place.path else ""):
            yield key.removeprefix(place.path).lstrip("/")
        return
    system, root = found
    async for name in _of_s3(system, root) if hasattr(system, "_iterdir") else _of_folders(system, root):
        yield name.removeprefix(root.strip("/")).lstrip("/")


async def _of_s3(system: Any, root: str) -> AsyncIterator[str]:
    bucket, _, prefix = root.strip("/").partition("/")
    try:
        async for entry in system._iterdir(bucket, delimiter="", prefix=f"{prefix}/" if prefix else ""):
            yield entry["name"]
    except FileNotFoundError:
        return


async def _of_folders(system: Any, root: str) -> AsyncIterator[str]:
    system.invalidate_cache()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = await system._ls(folder, detail=True)
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry["type"] != "directory":
                yield entry["name"].strip("/")
            elif entry["name"].strip("/") != folder.strip("/"):
                folders.append(entry["name"])


async def _numbered(keys: AsyncIterator[str]) -> AsyncIterator[tuple[int, str]]:
    number = 0
    async for key in keys:
        number += 1
        yield number, key


def _some(keys: list[str]) -> str:
    count = f"{len(keys):,}{' or more' if len(keys) >= _MOST_LOOKED_AT - 1 else ''}"
    more = ", ..." if len(keys) > _SHOWN else ""
    return f"{count} {'object' if len(keys) == 1 else 'objects'} ({', '.join(keys[:_SHOWN])}{more})"
