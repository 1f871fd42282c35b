"""Rows for more images, added to a store without touching what is done.

They start with the next shard. Their ids, and metadata that is longer than it was, are written first; the group's metadata is
written last, in one piece, and with it they are there. A reader that has the store open does not see them, one that opens it
sees all or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import StoreBusyError
from labelstore.ids import pack_ids
from labelstore.pipelines.claims import CLAIMED, Claim, refuse_claimed
from labelstore.pipelines.group_file import GROUP, GroupFile, GuardedSink, attributes_of, open_group_file, withdrawn_on_failure
from labelstore.pipelines.index import fit_targets, index_columns, write_index
from labelstore.pipelines.links import require_unused
from labelstore.pipelines.metadata import fresh_arrays, group_json, without_claim, write_metadata
from labelstore.pipelines.sink import Sink, open_sink
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.store import writing
from labelstore.pipelines.store_files import store_files
from labelstore.records import Extent
from labelstore.schema import IDS_ARRAY, StoreInfo, index_arrays
from labelstore.storage import local_path, open_source, parse_group, store_arrays
from labelstore.storage.documents import MOST_BYTES
from labelstore.storage.metadata import array_grid


@dataclass(frozen=True)
class Extension:
    """What a store becomes: its new attributes, and ids and targets of the new rows, from ``first_row`` on."""

    info: StoreInfo
    first_row: int
    ids: NDArray[np.uint8]
    targets: NDArray[np.int32]


def plan_extension(info: StoreInfo, listing: Listing, new: NDArray[np.int64]) -> Extension:
    """Say what a store becomes with some of a listing's images, which are in byte order of their ids."""
    ids = pack_ids([listing.ids[number] for number in new.tolist()])
    targets, names = fit_targets(listing.targets[new], listing.target_names, info.target_names)
    start = info.num_shards * info.shard_size
    extent = Extent(start, start + len(new), listing.root)
    wider = ids.shape[1] > info.id_bytes
    extended = replace(
        info,
        num_rows=extent.stop,
        extents=(*info.all_extents, extent) if info.num_rows else (extent,),
        target_names=names,
        id_bytes=max(ids.shape[1], info.id_bytes),
        ids_array=_next_name(info.ids_array) if wider else info.ids_array,
    )
    return Extension(extended, start, _widened(ids, extended.id_bytes), targets)


def extend_store(location: str, before: StoreInfo, extension: Extension) -> None:
    """Add the rows, all pending. Only for who holds the store's lock.

    Raises
    ------
    StoreWriteError
        The disk is full or read-only; the store is as it was.
    StoreBusyError
        Behind a URL: another run is adding rows, or has added some since this extension was planned.
    """
    after, path = extension.info, local_path(location)
    with writing(location):
        group = open_group_file(location)
        others = _current(location, group, before)
        if path is None:  # nothing is locked there
            group.replace(group_json({**others, CLAIMED: Claim.new().to_attribute()}))
        with withdrawn_on_failure(location, group, group_json(others)):
            sink = GuardedSink(open_sink(location), group)
            _add_index(location, sink, before, extension)
            write_metadata(sink, group, others, after, _grown(location, after))


def _current(location: str, group: GroupFile, before: StoreInfo) -> dict[str, Any]:
    """Return the group's attributes, those that the extension was planned with, without the claim of a run that died."""
    attributes = attributes_of(group.read() or b"") or {}
    refuse_claimed(attributes, location)
    if parse_group({"node_type": "group", "attributes": attributes}, location) != before:
        raise StoreBusyError(f"{location}: another run has added rows meanwhile; nothing was added. Run the same command again")
    return without_claim(attributes)


def _add_index(location: str, sink: Sink, before: StoreInfo, extension: Extension) -> None:
    """Write ids and targets of the new rows; all ids into a new array where those of the old one are too short."""
    after, first = extension.info, extension.first_row
    columns = index_columns(after, extension.ids, extension.targets)
    if after.ids_array != before.ids_array:
        require_unused(location, after.ids_array)
        ids = np.zeros((after.num_rows, after.id_bytes), np.uint8)
        old = open_source(location)[0].index_array(index_arrays(before)[0])
        ids[: len(old), : before.id_bytes] = old
        ids[first:] = columns.pop(after.ids_array)
        path = local_path(location)
        if path is not None:
            (path / after.ids_array).mkdir()
        write_index(sink, after, {after.ids_array: ids}, range(after.num_shards))
    write_index(sink, after, columns, range(first // after.shard_size, after.num_shards), first)


def _grown(location: str, after: StoreInfo) -> dict[str, Mapping[str, Any]]:
    """Return the arrays' metadata by name: as they are, with more rows."""
    files, arrays = store_files(location), fresh_arrays(after)
    for spec in store_arrays(after):
        data = files.read(f"{spec.name}/{GROUP}", MOST_BYTES)
        if data is not None:
            arrays[spec.name] = json.loads(data) | {"shape": [array_grid(spec, after)[0], *spec.row_shape]}
    return dict(arrays)


def _widened(ids: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(ids, ((0, 0), (0, width - ids.shape[1])))


def _next_name(name: str) -> str:
    found = IDS_ARRAY.fullmatch(name)
    number = int(found[1][1:]) if found and found[1] else 0
    return f"ids_{number + 1}"
