"""From a path or URL to a checked, open source: metadata first, then the way to read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labelstore.encodings import committed_arrays
from labelstore.errors import FormatError, StoreNotFoundError, UnfinishedStoreError
from labelstore.schema import ATTRIBUTE, UNFINISHED, ArraySpec, StoreInfo, index_arrays
from labelstore.storage.base import Source
from labelstore.storage.local import LocalSource
from labelstore.storage.metadata import ArrayMeta, array_grid, check_array, commits_spec
from labelstore.storage.seals import check_attributes

PARTIAL = ".partial"
"""How the names of files end that are being written."""
LOCK = ".lock"
"""The file that whoever writes to a store holds locked."""


def open_source(location: str | Path) -> tuple[Source, StoreInfo]:
    """Open a store for reading.

    Raises
    ------
    StoreNotFoundError, FormatError, DamagedError, MissingExtraError
    """
    path = local_path(location)
    if path is None:
        return _open_by_zarr(str(location))
    info, arrays, files = _read_metadata(lambda name: _read_json(path, name), str(path))
    if all(meta.direct for meta in arrays.values()):
        return LocalSource(path, info, arrays, files), info
    return _open_by_zarr(str(path))


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
    from labelstore.storage.remote import ZarrSource, open_group  # zarr costs a quarter of a second: only where needed

    group = open_group(location)

    def metadata(name: str) -> Any:
        return (group.metadata if not name else group[name].metadata).to_dict()

    info, arrays, files = _read_metadata(metadata, location)
    return ZarrSource(location, info, arrays, files), info


def _read_metadata(read: Callable[[str], Any], where: str) -> tuple[StoreInfo, dict[str, ArrayMeta], tuple[ArraySpec, ...]]:
    info = parse_group(read(""), where)
    files = committed_arrays(info, where)
    arrays = {}
    for spec in store_arrays(info):
        try:
            meta = read(spec.name)
        except (FileNotFoundError, KeyError):
            raise FormatError(f"{where}: expected an array '{spec.name}', found none") from None
        arrays[spec.name] = check_array(meta, spec, *array_grid(spec, info), where)
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
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        if name:
            raise
        if path.is_dir() and not is_blank(path):
            raise FormatError(f"{path}: expected a label store, found a folder without zarr.json") from None
        raise StoreNotFoundError(f"{path}: no store here; `labelstore annotate` makes one") from None
    except NotADirectoryError:
        raise FormatError(f"{path}: expected a label store (a folder), found a file") from None
    except (ValueError, OSError) as error:
        raise FormatError(f"{file}: expected JSON, found: {error}") from error
