"""From a path or URL to a checked, open source: metadata first, then the way to read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labelstore.encodings import committed_arrays
from labelstore.errors import DamagedError, FormatError, LabelStoreError, OptionError, StoreNotFoundError, UnfinishedStoreError
from labelstore.schema import ATTRIBUTE, UNFINISHED, ArraySpec, StoreInfo, index_arrays
from labelstore.storage.base import Source
from labelstore.storage.chunks import DataFile
from labelstore.storage.documents import MOST_BYTES, parse_json
from labelstore.storage.failures import again, unreadable
from labelstore.storage.local import LocalSource
from labelstore.storage.metadata import ArrayMeta, array_grid, check_array, commits_spec
from labelstore.storage.seals import array_seals, check_attributes

PARTIAL = ".partial"
"""How the names of files end that are being written."""
_PARTIAL_NAME = re.compile(r"(zarr|zarr\.json|c(\.[0-9]{1,12})*|mark(\.[0-9a-f]{32}\.partial)?)\.[0-9a-f]{32}\.partial")
LOCK = ".lock"
"""The file that whoever writes to a store holds locked."""


def open_source(
    location: str | Path, cache_dir: str | Path | None = None, cache_dir_bytes: int | None = None
) -> tuple[Source, StoreInfo]:
    """Open a store for reading; one behind a URL by its copy below ``cache_dir``, where that is given.

    Raises
    ------
    StoreNotFoundError, FormatError, DamagedError, StoreReadError, StoreTooLargeError, MissingExtraError, CacheError,
    OptionError
    """
    path = local_path(location)
    if path is None:
        return _open_url(str(location), cache_dir, cache_dir_bytes)
    info, arrays, files = _read_metadata(lambda names: [_read_json(path, name) for name in names], str(path))
    if all(meta.direct for meta in arrays.values()):
        return LocalSource(path, info, arrays, files), info
    from labelstore.storage.remote import ZarrSource  # zarr costs a quarter of a second: only where needed

    return ZarrSource(str(path), info, arrays, files), info


def local_path(location: str | Path) -> Path | None:
    """Return the folder that a path or ``file://`` URL names; None for any other URL."""
    if isinstance(location, Path):
        return location
    if "://" not in location:
        return Path(location)
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def store_arrays(info: StoreInfo) -> tuple[ArraySpec, ...]:
    """Return the specs of all arrays of a store."""
    return (*committed_arrays(info), *index_arrays(info), commits_spec(info))


def _open_url(location: str, cache_dir: str | Path | None, cache_dir_bytes: int | None) -> tuple[Source, StoreInfo]:
    from labelstore.storage.objects import Objects, Part  # zarr costs a quarter of a second: only where needed

    objects = Objects(location)

    def read(names: Sequence[str]) -> list[Any]:
        keys = [f"{name}/zarr.json" if name else "zarr.json" for name in names]
        found = objects.fetch([Part(key, 0, MOST_BYTES + 1) for key in keys])
        if names[0] == "" and found[0] is None:
            raise StoreNotFoundError(f"{location}: no store here; `labelstore annotate` makes one")
        return [None if data is None else parse_json(data, f"{location}/{key}") for key, data in zip(keys, found, strict=True)]

    info, arrays, files = _read_metadata(read, location)
    if all(meta.direct for meta in arrays.values()):
        from labelstore.storage.mirror import MirrorSource
        from labelstore.storage.ranges import RangeSource

        source = RangeSource(location, info, arrays, files)
        return (source if cache_dir is None else MirrorSource(source, info, cache_dir, cache_dir_bytes)), info
    if cache_dir is not None:
        raise OptionError(f"cache_dir: {location} is not laid out as labelstore does it, and cannot be kept")
    from labelstore.storage.remote import ZarrSource

    return ZarrSource(location, info, arrays, files), info


def _read_metadata(
    read: Callable[[Sequence[str]], list[Any]], where: str
) -> tuple[StoreInfo, dict[str, ArrayMeta], tuple[ArraySpec, ...]]:
    """Check what ``read`` gives of the group, which is "", and of arrays by name: JSON, or None for what is not there."""
    (group,) = read([""])
    info, seals = parse_group(group, where), array_seals(group["attributes"])
    files = committed_arrays(info, where)
    arrays, specs = {}, store_arrays(info)
    for spec, meta in zip(specs, read([spec.name for spec in specs]), strict=True):
        if meta is None:
            hint = "`labelstore repair` makes its metadata anew, if this was a label store"
            raise FormatError(f"{where}: expected an array '{spec.name}', found none; {hint}")
        arrays[spec.name] = check_array(meta, spec, *array_grid(spec, info), where, seals.get(spec.name))
    return info, arrays, files


def parse_group(meta: object, where: str) -> StoreInfo:
    """Check a group's metadata and return what the store says of itself.

    Raises
    ------
    FormatError, DamagedError
    """
    attributes = meta.get("attributes") if isinstance(meta, dict) and meta.get("node_type") == "group" else None
    if isinstance(attributes, dict) and UNFINISHED in attributes:
        raise UnfinishedStoreError(f"{where}: the creation of this store was cut off; run annotate again")
    if not isinstance(attributes, dict) or ATTRIBUTE not in attributes:
        raise FormatError(f"{where}: expected a label store (a Zarr v3 group with '{ATTRIBUTE}' attributes), found none")
    info = StoreInfo.from_attributes(attributes[ATTRIBUTE], where)
    check_attributes(attributes, where)
    return info


def is_partial(name: str) -> bool:
    """Whether a name is one that this project, or zarr-python, gives a store's file while it is being written."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def is_blank(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what a creation leaves that was cut off before it had begun."""
    return all(is_partial(entry.name) or entry.name == LOCK for entry in folder.iterdir())


@again
def _read_file(path: str) -> bytes:
    return DataFile(path).whole(MOST_BYTES)


def _no_store(path: Path) -> LabelStoreError:
    """Return the error of a path at which there is no group's metadata."""
    try:
        if path.exists() and not path.is_dir():
            return FormatError(f"{path}: expected a label store (a folder), found a file")
        if path.is_dir() and not is_blank(path):
            return FormatError(f"{path}: expected a label store, found a folder without zarr.json")
    except OSError as error:
        return unreadable(str(path), error)
    return StoreNotFoundError(f"{path}: no store here; `labelstore annotate` makes one")


def _read_json(path: Path, name: str) -> Any:
    file = path / name / "zarr.json"
    try:
        data = _read_file(str(file))
    except FileNotFoundError:
        if name:
            return None
        raise _no_store(path) from None
    except DamagedError as error:
        raise FormatError(f"{error}; expected JSON") from error
    except ValueError as error:  # a path with a NUL in it
        raise FormatError(f"{file}: expected JSON, found: {error}") from error
    return parse_json(data, str(file))
