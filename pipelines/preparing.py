"""Before a run: what earlier ones have left or lost is put right, and the store made ready for what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelstore.errors import StoreMismatchError, StoreNotFoundError, UnfinishedStoreError
from labelstore.pipelines.claims import require_unclaimed
from labelstore.pipelines.extending import extend_store, plan_extension
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.links import require_no_links
from labelstore.pipelines.matching import ExistingStore, existing_store
from labelstore.pipelines.metadata import settle_metadata
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.restoring import restore_index
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.store import ShardWriter, committed_shards, writing
from labelstore.schema import Status, StoreInfo
from labelstore.storage import open_source


@dataclass(frozen=True)
class Intent:
    """What a run is to do with a store that exists; ``locked``: it may write to it."""

    extend: bool = False
    retry_failed: bool = False
    locked: bool = True


def find_store(location: str, settings: Settings, listing: Listing, intent: Intent, observer: Observer) -> ExistingStore | None:
    """Return the store as the run finds it, put right; None if there is none. Raises as `existing_store` does."""
    require_no_links(location)
    if intent.locked:
        _put_right(location, listing, observer)
    found = existing_store(location, settings, listing, intent.extend)
    if found is not None and (intent.extend or intent.retry_failed or found.pending):
        _require_annotated(location, found.info)
        recorded_annotators(location, found.info, settings.models)  # refused before anything is changed
    if found is None or not intent.locked:
        return found
    if intent.extend and len(found.match.new):
        extend_store(location, found.info, plan_extension(found.info, listing, found.match.new))
        observer.note(f"new images: {len(found.match.new)}, for which the store has rows now")
        found = existing_store(location, settings, listing, extend=True)
    if found is not None and intent.retry_failed and release_failed(location, found):
        found = existing_store(location, settings, listing, intent.extend)
    if found is not None and found.left:
        observer.warning(f"{found.left} rows stay pending: their images are not among these")
    return found


def release_failed(location: str, found: ExistingStore) -> int:
    """Remove the commits of shards with failed rows, durably; return how many there were."""
    source, info = open_source(location)
    able = (shard for shard in committed_shards(source, info, range(info.num_shards)) if _has_all_images(found, shard))
    failed = [shard for shard in able if (source.status(np.array(info.shard_rows(shard))) == Status.FAILED).any()]
    writer = ShardWriter(location)
    with writing(location):
        for shard in failed:
            writer.discard(shard)
    return len(failed)


def _put_right(location: str, listing: Listing, observer: Observer) -> None:
    info = _info(location)
    if info is None:
        return
    require_unclaimed(location)
    with writing(location):
        remove_left_overs(location)
        if settle_metadata(location, info):
            observer.note("the store's metadata were damaged, or an extension was cut off: restored")
    restored = restore_index(location, listing)
    if restored:
        observer.note(f"lost files of ids and labels, restored from the images: {restored}")
        with writing(location):
            remove_left_overs(location)  # what `repair` had set aside of them


def _require_annotated(location: str, info: StoreInfo) -> None:
    """Refuse to mix maps that others have made with an annotator's of ours."""
    if info.imported is not None:
        raise StoreMismatchError(
            f"{location}: its maps were not annotated but imported ({info.imported.kind}); only the same import goes on with "
            "it. Choose another --store"
        )


def _info(location: str) -> StoreInfo | None:
    try:
        return open_source(location)[1]
    except (StoreNotFoundError, UnfinishedStoreError):
        return None


def _has_all_images(found: ExistingStore, shard: int) -> bool:
    return bool((found.match.images[list(found.info.shard_rows(shard))] >= 0).all())
