"""A store that exists, held against the images of a run: which row is which image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, StoreMismatchError, StoreNotFoundError, UnfinishedStoreError
from labelstore.ids import IdTable, ImageIds, pack_ids
from labelstore.pipelines.plan import ShardSpec, pending_shards
from labelstore.pipelines.settings import Settings, require_same_settings
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.store import committed_shards
from labelstore.schema import StoreInfo, index_arrays
from labelstore.storage import open_source
from labelstore.storage.origin import ids_seal

NO_IMAGE = -1
_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """A store's rows and a source's images.

    ``images`` are the rows' images by their number in the listing, int64 ``[N]``, `NO_IMAGE` for holes and for rows whose image
    the listing has not; ``new`` are the numbers of images that have no row.
    """

    images: NDArray[np.int64]
    new: NDArray[np.int64]


@dataclass(frozen=True)
class ExistingStore:
    """A store that fits the settings and images, and its shards without a matching commit, of which all images are there."""

    info: StoreInfo
    pending: list[int]
    match: Match
    left: int = 0
    """Pending rows that stay pending, because the source has not all of their shards' images."""


def new_store(info: StoreInfo) -> ExistingStore:
    """Return a store that has just been made for a listing."""
    match = Match(np.arange(info.num_rows), np.empty(0, np.int64))
    return ExistingStore(info, pending_shards(info.num_shards, ()), match)


def shard_spec(found: ExistingStore, listing: Listing, shard: int) -> ShardSpec:
    """Return where the images of a shard lie, and which these are."""
    images = found.match.images[list(found.info.shard_rows(shard))].tolist()
    seal = ids_seal(pack_ids([listing.ids[image] for image in images]))
    return ShardSpec(shard, tuple(listing.places[image] for image in images), seal)


def existing_store(location: str, settings: Settings, listing: Listing, extend: bool = False) -> ExistingStore | None:
    """Open the store if there is one, and make sure that it is this one.

    Parameters
    ----------
    extend
        Whether the images may be others than the store's.

    Raises
    ------
    StoreMismatchError
        It was made with other settings (which is said) or for other images.
    FormatError, DamagedError
        What is there is no store, or its metadata or ids are damaged.
    """
    try:
        source, info = open_source(location)
    except (StoreNotFoundError, UnfinishedStoreError):
        return None
    require_same_settings(location, settings, info)
    try:
        stored = ImageIds(source.index_array(index_arrays(info)[0]), location)
    except DamagedError as error:
        raise DamagedError(f"{error}; run `labelstore repair {location}`, and annotate again") from error
    match = match_images(stored, info, listing)
    if not extend:
        _require_same_images(location, listing, match, info)
    pending = pending_shards(info.num_shards, committed_shards(source, info, range(info.num_shards)))
    able = [shard for shard in pending if (match.images[list(info.shard_rows(shard))] != NO_IMAGE).all()]
    left = sum(len(info.shard_rows(shard)) for shard in pending) - sum(len(info.shard_rows(shard)) for shard in able)
    return ExistingStore(info, able, match, left)


def match_images(stored: IdTable, info: StoreInfo, listing: Listing) -> Match:
    """Find each image's row."""
    rows, known = stored.find(listing.ids)
    images = np.full(info.num_rows, NO_IMAGE, np.int64)
    images[rows[known]] = np.flatnonzero(known)
    return Match(images, np.flatnonzero(~known))


def _require_same_images(location: str, listing: Listing, match: Match, info: StoreInfo) -> None:
    gone = np.flatnonzero(match.images == NO_IMAGE)
    holes = [row for hole in info.holes for row in hole]
    gone = gone[~np.isin(gone, holes)]
    if not len(gone) and not len(match.new):
        return
    stored = ImageIds(open_source(location)[0].index_array(index_arrays(info)[0]), location)
    new_ids = [listing.ids[number] for number in match.new[:_SHOWN].tolist()]
    gone_ids = [stored[row] for row in gone[:_SHOWN].tolist()]
    hint = "Name the same images, or choose another --store for these"
    if len(match.new):
        hint = "Add --extend to add the new ones to the store, name the same images, or choose another --store for these"
    raise StoreMismatchError(
        f"{location}: expected the {info.num_images} images that the store was made for, found {len(listing.ids)} below "
        f"{listing.root}: {_few(len(match.new), new_ids)} new, {_few(len(gone), gone_ids)} gone. {hint}"
    )


def _few(count: int, ids: list[str]) -> str:
    return f"{count} ({', '.join(ids)}{', ...' if count > len(ids) else ''})" if count else "0"
