"""Rows for more images, added to a store without touching what is done.

They start with the next shard. Their ids, and metadata that is longer than it was, are written first; the group's metadata is
written last, in one piece, and with it they are there. A reader that has the store open does not see them, one that opens it
sees all or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.ids import pack_ids
from labelstore.pipelines.arrays import array_json, create_array
from labelstore.pipelines.index import fit_targets, index_columns, write_index
from labelstore.pipelines.links import require_unused
from labelstore.pipelines.metadata import write_metadata
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.store import writing
from labelstore.records import Extent
from labelstore.schema import IDS_ARRAY, StoreInfo, index_arrays
from labelstore.storage import open_source, store_arrays
from labelstore.storage.metadata import array_grid
from labelstore.storage.patient_store import open_place


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
    """
    after = extension.info
    with writing(location):
        sink, first = open_sink(location), extension.first_row
        shards = range(first // after.shard_size, after.num_shards)
        columns = index_columns(after, extension.ids, extension.targets)
        group = zarr.open_group(open_place(location), mode="r+")
        if after.ids_array != before.ids_array:
            _widen_ids(location, group, before, extension)
            del columns[after.ids_array]
        write_index(sink, after, columns, shards, first)
        arrays: dict[str, Mapping[str, Any]] = {}
        for spec in store_arrays(after):
            meta = array_json(group, spec.name)
            meta["shape"] = [array_grid(spec, after)[0], *spec.row_shape]
            arrays[spec.name] = meta
        write_metadata(sink, group.attrs.asdict(), after, arrays)


def _widen_ids(location: str, group: zarr.Group, before: StoreInfo, extension: Extension) -> None:
    """Write all ids into a new array: a row of the old one is too short for the longest."""
    after, spec = extension.info, index_arrays(extension.info)[0]
    require_unused(location, spec.name)
    create_array(group, spec, *array_grid(spec, after))
    ids = np.zeros((after.num_rows, after.id_bytes), np.uint8)
    old = open_source(location)[0].index_array(index_arrays(before)[0])
    ids[: len(old), : before.id_bytes] = old
    ids[extension.first_row :] = extension.ids
    write_index(open_sink(location), after, {spec.name: ids}, range(after.num_shards))


def _widened(ids: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(ids, ((0, 0), (0, width - ids.shape[1])))


def _next_name(name: str) -> str:
    found = IDS_ARRAY.fullmatch(name)
    number = int(found[1][1:]) if found and found[1] else 0
    return f"ids_{number + 1}"
