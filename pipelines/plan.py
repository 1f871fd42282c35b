"""What is to be done: pure functions and plain data, no engine, no files.

A run is a `JobSpec` and the numbers of the shards that have no matching commit; a task is a few shards, each committed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.sources.places import ExcludedPlace, Place

MIN_SHARD, MAX_SHARD, ENOUGH_SHARDS = 4, 4096, 64
MOST_ROWS_A_TASK = {"cpu": 512, "cuda": 4096}
"""Seconds of work. Between tasks a worker has nothing read ahead."""
LEAST_ROWS_A_TASK = 8
_LEFT_OUT = ExcludedPlace("left out of a trial")


@dataclass(frozen=True)
class JobSpec:
    """What all shards of a run share, and what is not in the store itself.

    ``run`` tells runs apart: what a worker keeps open for one is not used for the next. ``threads`` are torch's in a worker,
    ``decode_threads`` those that decode and resize images, ``decode_ahead`` how many images before they are asked for;
    ``versions`` those that workers must have, of the packages that make the bytes; ``identity`` is the store's
    (`StoreInfo.identity`): a store that has meanwhile been made at the same place is another one.
    """

    run: str
    store: str
    annotators: EnsembleSpec
    batch_size: int
    device: str
    threads: int
    decode_threads: int
    decode_ahead: int = 0
    versions: tuple[tuple[str, str], ...] = ()
    identity: tuple[str | None, str] | None = None


@dataclass(frozen=True)
class ShardSpec:
    """The rows of one shard, where their images are, and the seal of these images' ids."""

    shard: int
    places: tuple[Place, ...]
    ids_seal: int | None = None


@dataclass(frozen=True)
class TaskSpec:
    """One task: a few shards, done one after the other."""

    job: JobSpec
    shards: tuple[ShardSpec, ...]


@dataclass(frozen=True)
class TrialSpec:
    """Batches of a shard that are loaded and annotated to see whether the process survives it; nothing is written."""

    job: JobSpec
    shard: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class ShardReport:
    """What a finished shard says. Small: it travels from worker to client.

    ``failures`` holds (image id, reason); ``seconds`` the time by stage; ``notes`` what the user should know; ``num_bytes`` is
    what was written; ``converted`` counts images of which 8 bits were made.
    """

    shard: int
    rows: int
    failures: tuple[tuple[str, str], ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    num_bytes: int = 0
    converted: int = 0


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


def tasks(
    job: JobSpec, pending: Sequence[int], rows_a_shard: int, workers: int, part: Callable[[int], ShardSpec]
) -> Iterator[TaskSpec]:
    """Yield tasks: shards in runs that get shorter towards the end, so that several workers finish together (`in_runs`).

    Parameters
    ----------
    part
        What there is to be done for a shard.
    """
    for shards in in_runs(pending, rows_a_shard, workers, MOST_ROWS_A_TASK[job.device]):
        yield TaskSpec(job, tuple(map(part, shards)))


def in_runs(pending: Sequence[int], rows_a_shard: int, workers: int, most_rows: int) -> Iterator[Sequence[int]]:
    """Yield the shards of one task after the other, each of at most so many rows, or of one shard."""
    start = 0
    while start < len(pending):
        rest = (len(pending) - start) * rows_a_shard
        share = max(rest // (2 * workers), LEAST_ROWS_A_TASK) if workers > 1 else rest
        shards = pending[start : start + max(min(most_rows, share) // rows_a_shard, 1)]
        yield shards
        start += len(shards)


def trial_of(job: JobSpec, spec: ShardSpec, rows: range) -> TrialSpec:
    """Return a trial of some rows of a shard: in the batches in which its task has them, all other images left out."""
    size = job.batch_size
    first, end = rows.start // size * size, -(-rows.stop // size) * size
    batches = enumerate(spec.places[first:end], first)
    return TrialSpec(job, spec.shard, tuple(place if row in rows else _LEFT_OUT for row, place in batches))


def trial_without_images(job: JobSpec, spec: ShardSpec) -> TrialSpec:
    """Return a trial of no image at all: a batch of each size that the shard's task has."""
    rows, size = len(spec.places), job.batch_size
    return TrialSpec(job, spec.shard, (_LEFT_OUT,) * min(rows, size + rows % size))
