"""From a path or URL to a checked, open source: metadata first, then the way to read it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labelstore.encodings import committed_arrays
from labelstore.errors import DamagedError, FormatError, StoreNotFoundError, UnfinishedStoreError
from labelstore.schema import ATTRIBUTE, UNFINISHED, ArraySpec, StoreInfo, index_arrays
from labelstore.storage.base import Source
from labelstore.storage.chunks import DataFile
from labelstore.storage.documents import MOST_BYTES, parse_json
from labelstore.storage.local import LocalSource
from labelstore.storage.metadata import ArrayMeta, array_grid, check_array, commits_spec
from labelstore.storage.seals import array_seals, check_attributes

PARTIAL = ".partial"
"""How the names of files end that are being written."""
LOCK = ".lock"
"""The file that whoever writes to a store holds locked."""


def open_source(location: str | Path) -> tuple[Source, StoreInfo]:
    """Open a store for reading.

    Raises
    ------
    StoreNotFoundError, FormatError, DamagedError, StoreReadError, StoreTooLargeError, MissingExtraError
    """
    path = local_path(location)
    if path is None:
        return _open_by_zarr(str(location))
    info, arrays, files = _read_metadata(functools.partial(_read_json, path), str(path))
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
    files = committed_arrays(info)
    return (*files, *index_arrays(info), commits_spec(len(files)))


def _open_by_zarr(location: str) -> tuple[Source, StoreInfo]:
    from labelstore.storage.remote import ZarrSource, open_group, read_file

    group = open_group(location)

    def metadata(name: str) -> Any:
        key = f"{name}/zarr.json" if name else "zarr.json"
        data = read_file(group, key)
        if data is None:
            raise FileNotFoundError(key)
        return parse_json(data, f"{location}/{key}")

    info, arrays, files = _read_metadata(metadata, location)
    return ZarrSource(location, info, arrays, files), info


def _read_metadata(read: Callable[[str], Any], where: str) -> tuple[StoreInfo, dict[str, ArrayMeta], tuple[ArraySpec, ...]]:
    group = read("")
    info, seals = parse_group(group, where), array_seals(group["attributes"])
    files = committed_arrays(info, where)
    arrays = {}
    for spec in store_arrays(info):
        try:
            meta = read(spec.name)
        except FileNotFoundError:
            hint = "`labelstore repair` makes its metadata anew, if this was a label store"
            raise FormatError(f"{where}: expected an array '{spec.name}', found none; {hint}") from None
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


def is_blank(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what a creation leaves that was cut off before it had begun."""
    return all(entry.name.endswith(PARTIAL) or entry.name == LOCK for entry in folder.iterdir())


def _read_json(path: Path, name: str) -> Any:
    file = path / name / "zarr.json"
    try:
        data = DataFile(str(file)).whole(MOST_BYTES)
    except FileNotFoundError:
        if name:
            raise
        if path.exists() and not path.is_dir():
            raise FormatError(f"{path}: expected a label store (a folder), found a file") from None
        if path.is_dir() and not is_blank(path):
            raise FormatError(f"{path}: expected a label store, found a folder without zarr.json") from None
        raise StoreNotFoundError(f"{path}: no store here; `labelstore annotate` makes one") from None
    except DamagedError as error:
        raise FormatError(f"{error}; expected JSON") from error
    except ValueError as error:  # a path with a NUL in it
        raise FormatError(f"{file}: expected JSON, found: {error}") from error
    return parse_json(data, str(file))
