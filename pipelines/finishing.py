"""From tasks to the summary of a run: the shards that are pending are finished by an engine, and whoever watches is told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from labelstore.class_map import ClassMap
from labelstore.pipelines.engine import Engine, K, Work
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.summary import Summary, summarise
from labelstore.pipelines.tally import Tally
from labelstore.schema import StoreInfo


def finish_shards(
    engine: Engine,
    work: Work[K],
    tasks: Iterable[K],
    store: str,
    info: StoreInfo,
    pending: Sequence[int],
    observer: Observer,
    left: int = 0,
    class_map: ClassMap | None = None,
) -> Summary:
    """Finish the pending shards of a store, and sum it up.

    Parameters
    ----------
    tasks
        Of all pending shards.
    left
        Rows of other shards that stay pending.
    class_map
        Which classes the images' own labels are: see `own_labels`.
    """
    start = time.perf_counter()
    rows = np.concatenate([np.array(info.shard_rows(shard)) for shard in pending])
    observer.plan(info.num_images, info.num_images - len(rows) - left)
    tally = Tally(observer)
    for report in engine.run(work, tasks, tally.progress):
        tally.finish(report)
    tally.conclude(info.grey16)
    return summarise(store, info, len(rows), time.perf_counter() - start, rows, class_map)
