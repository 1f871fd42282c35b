"""A task of a transfer: a few shards of a store, filled with maps that are there already."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from labelstore.pipelines.engine import Work
from labelstore.pipelines.plan import ShardReport
from labelstore.pipelines.setting_aside import retry_alone
from labelstore.pipelines.shard import OnShardRows, torch_threads
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.writer import LabelMapWriter, open_writer


class MapsSource(Protocol):
    """Where maps are. Small, plain and hashable: it travels to workers with every task."""

    def fill(self, rows: ShardRows, part: Any) -> Iterator[int]:
        """Put every row of a shard, or fail it with a reason; yield every now and then how many more there are.

        Parameters
        ----------
        part
            Where the rows' maps are, in the source's own terms.

        Raises
        ------
        MapsError
            A map that cannot be kept, and that is not to be failed.
        """
        ...


@dataclass(frozen=True)
class TransferJob:
    """What all tasks of a transfer share; ``run``, ``store``, ``versions`` and ``identity`` as a `JobSpec`'s."""

    run: str
    store: str
    source: MapsSource
    versions: tuple[tuple[str, str], ...] = ()
    identity: tuple[str | None, str] | None = None


@dataclass(frozen=True)
class ShardPart:
    """A shard, where its rows' maps are, and the seal of their images' ids."""

    shard: int
    part: Any
    ids_seal: int | None = None


@dataclass(frozen=True)
class TransferTask:
    """A few shards, one after the other."""

    job: TransferJob
    shards: tuple[ShardPart, ...]


def transfer_shards(task: TransferTask, on_rows: OnShardRows) -> Iterator[ShardReport]:
    """Fill a task's shards; yield the report of each when it is committed. Those that are committed by now are left."""
    writer = _open_writer(task.job)
    stored = writer.stored_reports([part.shard for part in task.shards])
    yield from stored
    have = {report.shard for report in stored}
    writing: Future[ShardReport] | None = None
    with torch_threads(1), ThreadPoolExecutor(1, "write") as executor:  # a shard is written while the next is filled
        for part in task.shards:
            if part.shard in have:
                continue
            rows = _fill(writer.shard(part.shard, part.ids_seal), task.job.source, part, on_rows)
            if writing is not None:
                yield writing.result()
            writing = executor.submit(_write, rows)
        if writing is not None:
            yield writing.result()


def _fill(rows: ShardRows, source: MapsSource, part: ShardPart, on_rows: OnShardRows) -> ShardRows:
    failed = 0
    for count in source.fill(rows, part.part):
        more = rows.num_failed - failed
        failed += more
        on_rows(part.shard, count - more, more)
    return rows


def _write(rows: ShardRows) -> ShardReport:
    num_bytes = rows.commit()
    return ShardReport(rows.shard, len(rows), rows.failures(), {}, num_bytes=num_bytes)


@functools.lru_cache(maxsize=1)
def _open_writer(job: TransferJob) -> LabelMapWriter:
    return open_writer(job.store, job.identity)


def _nothing(_: TransferJob) -> None:
    """There is nothing to be got ready."""


TRANSFERRING = Work("transferring", _nothing, transfer_shards, functools.partial(retry_alone, transfer_shards))
