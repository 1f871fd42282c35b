"""Lost files of ids and targets, made anew from the images: `repair` removes what is damaged, annotate brings it back."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays
from labelstore.errors import ImageDecodeError, StoreMismatchError
from labelstore.ids import ImageIds, pack_ids
from labelstore.pipelines.index import fit_targets, write_index
from labelstore.pipelines.matching import match_images
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.sources.places import Place
from labelstore.pipelines.store import committed_shards, writing
from labelstore.pipelines.store_files import store_files
from labelstore.records import Extent
from labelstore.schema import ArraySpec, StoreInfo, index_arrays
from labelstore.storage import Source, open_source


@dataclass(frozen=True)
class _Store:
    location: str
    source: Source
    info: StoreInfo
    listing: Listing


def restore_index(location: str, listing: Listing) -> int:
    """Write lost files of ids and targets anew; return how many there were. Only for who holds the store's lock.

    Which image a row was made for follows from the order of ids and, where its map is there, from its content.

    Raises
    ------
    StoreMismatchError
        The images do not tell which of them the rows were made for.
    """
    source, info = open_source(location)
    names = {spec.name for spec in index_arrays(info)}
    keys = {entry.name for entry in store_files(location).entries() if entry.name.partition("/")[0] in names}
    store = _Store(location, source, info, listing)
    ids, targets = index_arrays(info)
    lost = {
        spec.name: [shard for shard in range(info.num_shards) if source.file_key(spec, shard) not in keys]
        for spec in (ids, targets)
    }
    if lost[ids.name]:
        matrix = _restored_ids(store, ids, lost[ids.name])
        _write(store, ids, matrix, lost[ids.name])
    if lost[targets.name]:
        stored = ImageIds(source.index_array(ids), location)
        _write(store, targets, _restored_targets(store, stored), lost[targets.name])
    return sum(map(len, lost.values()))


def _write(store: _Store, spec: ArraySpec, values: NDArray[np.generic], shards: list[int]) -> None:
    with writing(store.location):
        write_index(open_sink(store.location), store.info, {spec.name: values}, shards)


def _restored_ids(store: _Store, spec: ArraySpec, shards: list[int]) -> NDArray[np.uint8]:
    info, listing = store.info, store.listing
    matrix = np.zeros((info.num_rows, info.id_bytes), np.uint8)
    for shard in sorted(set(range(info.num_shards)) - set(shards)):
        known = info.shard_rows(shard)
        matrix[known.start : known.stop] = store.source.index_rows(spec, shard)
    rows = np.concatenate([np.array(info.shard_rows(shard)) for shard in shards])
    free = match_images(ImageIds(matrix, store.location), info, listing).new
    packed = pack_ids([listing.ids[number] for number in free.tolist()]) if len(free) else np.zeros((0, 1), np.uint8)
    if len(free) != len(rows):
        raise _unclear(store, rows, f"found {len(free)} images that the store does not know below {listing.root}")
    if packed.shape[1] > info.id_bytes:
        raise _unclear(store, rows, f"found ids of up to {packed.shape[1]} bytes, more than the {info.id_bytes} of the store's")
    ordered = [_in_order(matrix, extent) for extent in info.all_extents]  # those of Parquet files need not be
    matrix[_assigned(store, shards, rows, free), : packed.shape[1]] = packed
    for extent, before in zip(info.all_extents, ordered, strict=True):
        if before and not _in_order(matrix, extent):
            raise _unclear(store, rows, "found images whose ids do not fit between those of the other rows")
    return matrix


def _in_order(matrix: NDArray[np.uint8], extent: Extent) -> bool:
    """Whether the ids of an extent that are known are in byte order."""
    texts = matrix[extent.start : extent.stop].view(f"S{matrix.shape[1]}")[:, 0]
    known = texts[texts != b""]
    return bool((known[:-1] < known[1:]).all())


def _assigned(store: _Store, shards: list[int], rows: NDArray[np.int64], images: NDArray[np.int64]) -> list[int]:
    """Return each image's row, both in order: the next one of an extent that the image can have been."""
    known = _known_content(store, shards)
    waiting: dict[int, deque[int]] = {}
    for row in rows.tolist():
        waiting.setdefault(store.info.extent_of(row).start, deque()).append(row)
    found = []
    for image in images.tolist():
        content = _content(store.listing.places[image]) if known else 0
        heads = [rows for rows in waiting.values() if rows and known.get(rows[0], content) == content]
        if not heads:
            row, name = next(rows[0] for rows in waiting.values() if rows), store.listing.ids[image]
            raise _unclear(store, rows, f"found {name!r}, not the image that row {row} was made from")
        found.append(min(heads, key=lambda rows: rows[0] not in known).popleft())
    return found


def _known_content(store: _Store, shards: list[int]) -> dict[int, int]:
    """Return the checksums of the images that rows' maps were made from, by row; none of an image that was not read."""
    column = next(spec for spec in committed_arrays(store.info) if spec.name == "image_crc32")
    found = {}
    for shard in committed_shards(store.source, store.info, shards):
        values = store.source.index_rows(column, shard).tolist()
        found.update({row: crc32 for row, crc32 in zip(store.info.shard_rows(shard), values, strict=True) if crc32})
    return found


def _content(place: Place) -> int:
    try:
        return zlib.crc32(place.read())
    except (OSError, ImageDecodeError):
        return 0


def _restored_targets(store: _Store, stored: ImageIds) -> NDArray[np.int32]:
    info, listing = store.info, store.listing
    numbers, names = fit_targets(listing.targets, listing.target_names, info.target_names)
    images = match_images(stored, info, listing).images
    own = np.ones(info.num_rows, bool)
    for hole in info.holes:
        own[hole.start : hole.stop] = False
    if (names or ()) != (info.target_names or ()) or (images[own] < 0).any():
        raise StoreMismatchError(
            f"{store.location}: labels of images are lost; expected just the images that the store was made for, with their "
            "labels, to restore them"
        )
    return np.where(images >= 0, numbers[np.maximum(images, 0)], -1).astype(np.int32)


def _unclear(store: _Store, rows: NDArray[np.int64], found: str) -> StoreMismatchError:
    return StoreMismatchError(
        f"{store.location}: the ids of {len(rows)} rows (from row {rows[0]} on) are lost; expected just the images that the "
        f"store was made for, to restore them, {found}"
    )
