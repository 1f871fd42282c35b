"""A store's ``zarr.json`` files: written so that they can be checked to the byte, and made anew where they are damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import zarr

from labelstore.errors import LabelStoreError, UnfinishedStoreError
from labelstore.pipelines.arrays import array_json, create_array
from labelstore.pipelines.claims import CLAIMED, claim_in
from labelstore.pipelines.group_file import GROUP, GroupFile, open_group_file
from labelstore.pipelines.sink import Sink, open_sink
from labelstore.pipelines.store_files import StoreFiles, store_files
from labelstore.schema import ATTRIBUTE, StoreInfo
from labelstore.storage import parse_group, store_arrays
from labelstore.storage.documents import MOST_BYTES, parse_json
from labelstore.storage.metadata import array_grid
from labelstore.storage.seals import SEALS, array_seal, json_bytes, seal_of, sealed_attributes

COPY = "commits/zarr.json"
_MOST_OF_ARRAY, _MOST_TIMES = 1 << 16, 16
"""Bytes of an array's metadata, and how much longer than its values JSON is where it is indented: more is not read."""
_SPELT_OUT = 1 << 24
"""The most bytes of metadata whose every space is compared; of more, values alone are: it would take a minute."""
Arrays = Mapping[str, Mapping[str, Any]]


def write_metadata(sink: Sink, group: GroupFile, others: Mapping[str, Any], info: StoreInfo, arrays: Arrays) -> None:
    """Write all of a store's metadata, the group's last and in one piece, if it is still what was read of it.

    Parameters
    ----------
    group
        The group's file, as it was read or written.
    others
        The group's attributes so far; those that are not labelstore's are kept.
    arrays
        The arrays' metadata by name.

    Raises
    ------
    StoreBusyError
        Another run has written the group's file since; its metadata hold.
    """
    said = {**others.get(ATTRIBUTE, {}), **json.loads(json.dumps(info.to_attributes()))}  # a later version may say more
    attributes = {**without_claim(others), **sealed_attributes(said, arrays)}
    files = {f"{name}/{GROUP}": json_bytes({**meta, "attributes": {}}) for name, meta in arrays.items()}
    files[COPY] = json_bytes({**arrays["commits"], "attributes": attributes})
    sink.put(files)
    sink.flush([*files, GROUP])  # with it the names of arrays that are new
    group.replace(group_json(attributes))


def group_json(attributes: Mapping[str, Any]) -> bytes:
    """Return the group's ``zarr.json``."""
    return json_bytes({"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def without_claim(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's attributes without the claim of a run that adds rows to it."""
    return {key: value for key, value in attributes.items() if key != CLAIMED}


def fresh_arrays(info: StoreInfo) -> dict[str, dict[str, Any]]:
    """Return the metadata that a new store's arrays have."""
    group = zarr.create_group(zarr.storage.MemoryStore())
    for spec in store_arrays(info):
        create_array(group, spec, *array_grid(spec, info))
    return {spec.name: array_json(group, spec.name) for spec in store_arrays(info)}


def read_attributes(files: StoreFiles, where: str) -> dict[str, Any] | None:
    """Return a store's attributes from the group's file, else from their copy; None if neither can be trusted, or if the
    creation of the store was cut off."""
    found: list[dict[str, Any]] = []
    for key in (GROUP, COPY):
        try:
            attributes = parse_json(files.read(key, MOST_BYTES) or b"", f"{where}/{key}")["attributes"]
            parse_group({"node_type": "group", "attributes": attributes}, where)
        except UnfinishedStoreError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, LabelStoreError):
            continue
        if SEALS in attributes:  # a wrong letter in its name, and there is none: then the copy may have it
            return dict(attributes)
        found.append(attributes)
    return next(iter(found), None)


def metadata_problems(files: StoreFiles, attributes: Mapping[str, Any], info: StoreInfo) -> list[tuple[str, str]]:
    """Hold the metadata files against their checksums, to the byte; return (file, what is wrong)."""
    seals = attributes.get(SEALS)
    if not isinstance(seals, Mapping):
        return []  # another program's store
    found, claim = [], claim_in(attributes)
    if claim is not None and not claim.holds:
        found.append((GROUP, f"{claim} has begun to add rows, and was cut off"))
    most = min(_MOST_TIMES * len(json.dumps(attributes)) + _MOST_OF_ARRAY, MOST_BYTES)
    for key in (GROUP, *(f"{spec.name}/{GROUP}" for spec in store_arrays(info))):
        problem = _problem(files, key, most, attributes, seals)
        if problem:
            found.append((key, problem))
    return found


def settle_metadata(location: str, info: StoreInfo) -> bool:
    """Make the metadata files what the store's attributes say, where they are not: damaged, or of an extension that was cut
    off; return whether there was anything to do. Only for who holds the store's lock."""
    files = store_files(location)
    attributes = read_attributes(files, location)
    if attributes is None or not metadata_problems(files, attributes, info):
        return False
    restore_metadata(location, attributes, info)
    return True


def restore_metadata(location: str, attributes: Mapping[str, Any], info: StoreInfo) -> None:
    """Write the metadata files anew, out of what the store says of itself."""
    sink, group, files = open_sink(location), open_group_file(location), store_files(location)
    if group.read() is None:
        group.create(group_json(attributes))
    arrays = fresh_arrays(info)
    seals = attributes.get(SEALS, {})
    for name, meta in arrays.items():
        kept = _parsed(files, f"{name}/{GROUP}")
        if isinstance(kept, dict) and array_seal(kept) == seals.get(name) != array_seal(meta):
            arrays[name] = kept  # another version of zarr-python wrote it in other words
    write_metadata(sink, group, attributes, info, arrays)


def _problem(files: StoreFiles, key: str, most: int, attributes: Mapping[str, Any], seals: Mapping[str, Any]) -> str:
    try:
        data = files.read(key, most)
        meta = parse_json(data or b"", key)
        unchanged = len(data or b"") > _SPELT_OUT or data == json_bytes(meta)
    except (OSError, ValueError, RecursionError) as error:
        return "missing" if isinstance(error, ValueError) and data is None else f"no JSON: {error}".replace(f"{key}: ", "")
    if not isinstance(meta, dict):
        return "expected an object"
    if key == GROUP:
        same = meta == {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}
        same = same and seals.get("attributes") == seal_of(attributes.get(ATTRIBUTE))
    else:
        same = array_seal(meta) == seals.get(key.rpartition("/")[0])
        same = same and meta.get("attributes") == (without_claim(attributes) if key == COPY else {})
    if same and unchanged:
        return ""
    return "not what was written: its checksum differs" if not same else "not the bytes that were written"


def _parsed(files: StoreFiles, key: str) -> object:
    try:
        return parse_json(files.read(key, MOST_BYTES) or b"", key)
    except (OSError, ValueError, RecursionError):
        return None
