"""What is to be done: pure functions and plain data, no engine, no files.

A run is a `JobSpec` and the numbers of the shards that have no matching commit; its unit of work is a `ShardSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from labelstore.pipelines.annotators.spec import AnnotatorSpec

MIN_SHARD, MAX_SHARD, ENOUGH_SHARDS = 4, 4096, 64


@dataclass(frozen=True)
class JobSpec:
    """What all shards of a run share, and what is not in the store itself.

    ``run`` tells runs apart: what a worker keeps open for one is not used for the next. ``threads`` are torch's in a worker,
    ``decode_threads`` those that read and resize images ahead of it.
    """

    run: str

    store: str
    images_root: str
    annotator: AnnotatorSpec
    batch_size: int
    device: str
    threads: int
    decode_threads: int


@dataclass(frozen=True)
class ShardSpec:
    """One task: the rows of one shard."""

    job: JobSpec
    shard: int


@dataclass(frozen=True)
class ShardReport:
    """What a finished shard says. Small: it travels from worker to client.

    ``failures`` holds (image id, reason); ``seconds`` the time by stage.
    """

    shard: int
    rows: int
    failures: tuple[tuple[str, str], ...]
    seconds: Mapping[str, float]


def shard_size(num_rows: int) -> int:
    """Return S: the largest power of two in 4..4096 that gives at least 64 shards, 4 where none does."""
    size = MAX_SHARD
    while size > MIN_SHARD and -(-num_rows // size) < ENOUGH_SHARDS:
        size //= 2
    return size


def pending_shards(num_shards: int, committed: Iterable[int]) -> list[int]:
    """Return the shards that are still to be made."""
    have = set(committed)
    return [shard for shard in range(num_shards) if shard not in have]
