"""What interrupted runs leave in a store: files half written, and files of an extension that was never finished."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto

from labelstore.pipelines.claims import is_claimed
from labelstore.pipelines.folder import METADATA, Entry, is_own_name
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.store_files import store_files
from labelstore.schema import IDS_ARRAY, ArraySpec, StoreInfo
from labelstore.storage import LOCK, is_partial, open_source, store_arrays

SET_ASIDE = ".set-aside"
"""What `repair` adds to the name of a file that it gives up."""


class Kind(Enum):
    """What a file in a store's folder is."""

    OURS = auto()
    LEFT_OVER = auto()
    """A run may remove it: partly written, of a shard beyond the store's rows, set aside and made again since, or of a table of
    ids that was replaced twice: the one before this one is kept for readers that were opened then."""
    SET_ASIDE = auto()
    """What `repair` has given up, under another name."""
    STRANGER = auto()


def kind_of(entry: Entry, info: StoreInfo, arrays: dict[str, ArraySpec]) -> Kind:
    """Tell what there is in a store's folder by its key and what it is; ``arrays`` are the store's by name.

    Nothing but a plain file, and the empty folder of a replaced table of ids, is ever a left-over.
    """
    key, what = entry
    folder, _, name = key.rpartition("/")
    replaced = IDS_ARRAY.fullmatch(folder) is not None and folder not in arrays
    if what == "folder":
        return Kind.LEFT_OVER if replaced and not name else Kind.STRANGER
    if what != "file":
        return Kind.STRANGER
    if key in (METADATA, LOCK):
        return Kind.OURS
    if is_partial(name) and (not folder or folder in arrays or replaced):
        return Kind.LEFT_OVER
    if replaced and is_own_name(name):
        return Kind.OURS if folder == info.replaced_ids else Kind.LEFT_OVER
    if folder not in arrays:
        return Kind.STRANGER
    if name == METADATA:
        return Kind.OURS
    shard = _shard_of(name.removesuffix(SET_ASIDE), arrays[folder])
    if shard is None:
        return Kind.STRANGER
    if name.endswith(SET_ASIDE) and shard < info.num_shards:
        return Kind.SET_ASIDE
    return Kind.OURS if shard < info.num_shards else Kind.LEFT_OVER


def sort_files(entries: Iterable[Entry], info: StoreInfo) -> dict[Kind, list[Entry]]:
    """Sort what there is by what it is."""
    arrays = {spec.name: spec for spec in store_arrays(info)}
    found: dict[Kind, list[Entry]] = {kind: [] for kind in Kind}
    for entry in entries:
        found[kind_of(entry, info, arrays)].append(entry)
    names = {entry.name for entry in found[Kind.OURS]}
    for entry in found.pop(Kind.SET_ASIDE):
        again = entry.name.removesuffix(SET_ASIDE) in names
        found.setdefault(Kind.LEFT_OVER if again else Kind.SET_ASIDE, []).append(entry)
    found.setdefault(Kind.SET_ASIDE, [])
    return found


def remove_left_overs(location: str) -> int:
    """Remove what interrupted runs have left; return how many files. Only for who holds the store's lock.

    What is a left-over is told by what the store says of itself now, its arrays included: now that its files have been listed,
    so that those of rows that another run is adding behind a URL, or has just added, are none.

    Raises
    ------
    LabelStoreError
        There is no store that can be read; nothing is removed.
    """
    sink, files, count = open_sink(location), store_files(location), 0
    while found := _found(location, list(files.entries())):  # again: a folder may be empty by then
        removed = sum(sink.delete(entry.name) for entry in found)
        if not removed:  # others are at it
            break
        count += removed
    return count


def _found(location: str, entries: list[Entry]) -> list[Entry]:
    info = open_source(location)[1]
    return [] if is_claimed(location) else sort_files(entries, info)[Kind.LEFT_OVER]


def _shard_of(name: str, spec: ArraySpec) -> int | None:
    """The shard that a file of an array belongs to; None if it is no such file."""
    found = re.match(r"c\.(0|[1-9][0-9]{0,11})(\.0)*$", name)
    return int(found[1]) if found and name == spec.file_name(int(found[1])) else None
