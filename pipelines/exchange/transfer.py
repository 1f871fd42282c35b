"""From maps that are there to a store of them: what is imported, converted, merged or picked out takes this way."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import StoreMismatchError, StoreNotFoundError, UnfinishedStoreError
from labelstore.pipelines.claims import require_unclaimed
from labelstore.pipelines.exchange.task import TRANSFERRING, MapsSource, ShardPart, TransferJob, TransferTask
from labelstore.pipelines.finishing import finish_shards
from labelstore.pipelines.free_place import require_free
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.links import require_no_links
from labelstore.pipelines.lock import store_lock
from labelstore.pipelines.marks import require_writable
from labelstore.pipelines.metadata import settle_metadata
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import in_runs, pending_shards
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.sources import Place
from labelstore.pipelines.store import committed_shards, create_store, writing
from labelstore.pipelines.summary import Summary, summarise
from labelstore.pipelines.versions import shared_versions
from labelstore.pipelines.which_engine import Needs, open_engine
from labelstore.schema import StoreInfo, index_arrays
from labelstore.storage import open_source
from labelstore.storage.origin import ids_seal

_MOST_ROWS_A_TASK = 8192
"""A second of work or a few."""
_MAY_DIFFER = {"versions", "created", "recipe", "ids_array", "images_root", "distance", "imported", "store_id"}
"""What a store that is gone on with may say otherwise: when, where and by what it was begun."""


@dataclass(frozen=True)
class Transfer:
    """Maps on their way into a store.

    Parameters
    ----------
    source
        Where they are.
    info
        What the store is to say of itself.
    ids, targets
        uint8 ``[N, L]`` and int32 ``[N]``, as `labelstore.pipelines.store.create_store` takes them.
    part
        Where the maps of a shard's rows are, in the source's terms.
    sample
        Something that workers elsewhere must be able to read.
    """

    source: MapsSource
    info: StoreInfo
    ids: NDArray[np.uint8]
    targets: NDArray[np.int32]
    part: Callable[[int], Any]
    sample: Sequence[Place] = field(default_factory=tuple)


def transfer(maps: Transfer, store: str, resources: Resources, observer: Observer) -> Summary:
    """Bring maps into a store, which is created, or gone on with if it was begun by the same transfer.

    Raises
    ------
    StoreMismatchError
        There is another store.
    LabelStoreError
        Anything that stops the run. Committed shards are kept: the same call later makes what is missing.
    """
    start = time.perf_counter()
    with store_lock(store):
        found = _existing(store, maps)
        info, pending = (maps.info, list(range(maps.info.num_shards))) if found is None else found
        if not pending:
            observer.plan(info.num_images, info.num_images)
            return summarise(store, info, 0, time.perf_counter() - start)
        if found is None:
            require_free(store)
        require_writable(store)
        with open_engine(resources, Needs(None, store, maps.sample), observer) as (engine, settled):
            if found is None:
                info = create_store(store, info, maps.ids, maps.targets)
            job = TransferJob(uuid.uuid4().hex, store, maps.source, tuple(shared_versions().items()), info.identity)
            runs = in_runs(pending, info.shard_size, settled.workers, _MOST_ROWS_A_TASK)
            tasks = (TransferTask(job, tuple(_part(maps, info, shard) for shard in shards)) for shards in runs)
            summary = finish_shards(engine, TRANSFERRING, tasks, store, info, pending, observer)
        remove_left_overs(store)  # of workers that died
    return summary


def _part(maps: Transfer, info: StoreInfo, shard: int) -> ShardPart:
    rows = info.shard_rows(shard)
    return ShardPart(shard, maps.part(shard), ids_seal(maps.ids[rows.start : rows.stop]))


def _existing(location: str, maps: Transfer) -> tuple[StoreInfo, list[int]] | None:
    """Return the store that this transfer has begun, and its pending shards; None if there is none."""
    require_no_links(location)
    try:
        info = open_source(location)[1]
    except (StoreNotFoundError, UnfinishedStoreError):
        return None
    require_unclaimed(location)
    with writing(location):
        remove_left_overs(location)
        settle_metadata(location, info)
    source, info = open_source(location)
    _require_same(location, maps, info)
    stored = source.index_array(index_arrays(info)[0])
    if not np.array_equal(stored, maps.ids):
        raise StoreMismatchError(f"{location}: expected the same {len(maps.ids)} images, found others; choose another store")
    return info, pending_shards(info.num_shards, committed_shards(source, info, range(info.num_shards)))


def _require_same(location: str, maps: Transfer, info: StoreInfo) -> None:
    wanted, has = asdict(StoreInfo.from_attributes(maps.info.to_attributes(), location)), asdict(info)
    differ = [
        f"{key} {_short(value)} (the store has {_short(has[key])})"
        for key, value in wanted.items()
        if key not in _MAY_DIFFER and value != has[key]
    ]
    kinds = [None if found.imported is None else (found.imported.kind, found.imported.axes) for found in (maps.info, info)]
    if kinds[0] != kinds[1]:
        differ.append(f"maps imported as {_short(kinds[0])} (the store's: {_short(kinds[1])})")
    units = [_unit(found) for found in (maps.info, info)]
    if units[0] != units[1]:
        differ.append(f"scores as {units[0]} (the store's: {units[1]}); see --scores")
    if differ:
        raise StoreMismatchError(
            f"{location}: there is another store: {', '.join(differ)}. Choose the same to go on with it, or another place"
        )


def _unit(info: StoreInfo) -> str:
    return "logits" if info.imported is None or info.imported.scores is None else info.imported.scores.unit


def _short(value: object, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else text[:most] + "..."
