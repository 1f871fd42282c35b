"""What interrupted runs leave in a store: files half written, and files of an extension that was never finished."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto

from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.store_files import store_files
from labelstore.schema import IDS_ARRAY, ArraySpec, StoreInfo
from labelstore.storage import LOCK, PARTIAL, store_arrays

METADATA = "zarr.json"


class Kind(Enum):
    """What a file in a store's folder is."""

    OURS = auto()
    LEFT_OVER = auto()
    """A run may remove it: partly written, of a shard beyond the store's rows, or a table of ids that was replaced."""
    STRANGER = auto()


def kind_of(key: str, info: StoreInfo, arrays: dict[str, ArraySpec]) -> Kind:
    """Tell what a file is by its key; ``arrays`` are the store's by name."""
    folder, _, name = key.rpartition("/")
    if key in (METADATA, LOCK):
        return Kind.OURS
    if name.endswith(PARTIAL) and (not folder or folder in arrays):
        return Kind.LEFT_OVER
    if IDS_ARRAY.fullmatch(folder) and folder not in arrays:
        return Kind.LEFT_OVER
    if folder not in arrays:
        return Kind.STRANGER
    if name == METADATA:
        return Kind.OURS
    shard = _shard_of(name, arrays[folder])
    if shard is None:
        return Kind.STRANGER
    return Kind.OURS if shard < info.num_shards else Kind.LEFT_OVER


def sort_files(keys: Iterable[str], info: StoreInfo) -> dict[Kind, list[str]]:
    """Sort files by what they are."""
    arrays = {spec.name: spec for spec in store_arrays(info)}
    found: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for key in keys:
        found[kind_of(key, info, arrays)].append(key)
    return found


def remove_left_overs(location: str, info: StoreInfo) -> int:
    """Remove what interrupted runs have left; return how many files. Only for who holds the store's lock."""
    sink, files, count = open_sink(location), store_files(location), 0
    arrays = {spec.name: spec for spec in store_arrays(info)}

    def is_left_over(key: str) -> bool:
        return kind_of(key, info, arrays) is Kind.LEFT_OVER

    while found := list(filter(is_left_over, files.keys())):  # again: a folder may be empty by then
        count += sum(map(sink.delete, found))
    return count


def _shard_of(name: str, spec: ArraySpec) -> int | None:
    """The shard that a file of an array belongs to; None if it is no such file."""
    found = re.match(r"c\.(0|[1-9][0-9]{0,11})(\.0)*$", name)
    return int(found[1]) if found and name == spec.file_name(int(found[1])) else None
