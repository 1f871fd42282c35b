"""Shards that end the worker processes that annotate them: which of their images it is. Knows no engine.

Dask makes a task again when its worker dies, up to a number of times. What has died so often is set aside until all else is
finished, and then done here with nothing else in flight: a death is then this shard's fault, or chance, and what happens twice
is not taken for chance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from labelstore.errors import RunError
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import JobSpec, ShardReport, ShardSpec, TaskSpec, trial_of, trial_without_images
from labelstore.pipelines.shard import annotate_shards, try_rows
from labelstore.pipelines.sources.places import ExcludedPlace

MOST_GUILTY = 16
"""Images of one run; more are taken for the annotator's or the machine's fault."""
_MOST_ROUNDS = 3
_KEPT = "What is committed is kept"


class WorkerDiedError(Exception):
    """The process that had a task died, or was ended because the task did not go on; says what the task did."""


Alone = Callable[[Callable[..., Any], Any], Any]
"""Runs a function of a spec on a worker while nothing else runs, and only once; raises `WorkerDiedError`."""


def find_guilty(rows: range, kills: Callable[[range], str]) -> dict[int, str]:
    """Return those of the rows that end a process by themselves, and what they do to it.

    Parameters
    ----------
    rows
        Of which it is known that together they end it.
    kills
        Tries some rows; returns what they do to the process, '' if it survives.
    """
    if not rows:
        return {}
    if len(rows) == 1:
        how = kills(rows)
        return {rows.start: how} if how else {}
    middle = len(rows) // 2
    halves = [half for half in (rows[:middle], rows[middle:]) if kills(half)]
    return {row: how for half in halves for row, how in find_guilty(half, kills).items()}


def survivors(places: Sequence[Any], kills: Callable[[Sequence[Any]], str]) -> tuple[Any, ...]:
    """Return all but those places that end a process by themselves; together all of them have done so."""
    guilty = find_guilty(range(len(places)), lambda rows: kills(places[rows.start : rows.stop]))
    return tuple(place for at, place in enumerate(places) if at not in guilty)


def not_the_images(how: str) -> RunError:
    """Return what is to be raised where a worker process does not survive a black image either."""
    return RunError(
        f"the annotator {how} on a black image as well, so none of the images is to blame: the model is, or too little memory "
        f"for it. {_KEPT}; try a smaller --batch-size, fewer --workers, or another --model or --device"
    )


def retry_alone(
    finish: Callable[..., Iterator[ShardReport]], alone: Alone, observer: Observer
) -> Callable[[Any], Iterator[ShardReport]]:
    """Return what finishes tasks of work without images, of which nothing can be left out: they are tried some more times."""

    def finish_task(task: Any) -> Iterator[ShardReport]:
        for _ in range(_MOST_ROUNDS):
            with contextlib.suppress(WorkerDiedError):
                yield from alone(finish, task)
                return
        first, last = task.shards[0].shard, task.shards[-1].shard
        shards = f"shard {first} has" if first == last else f"shards {first} to {last} have"
        raise RunError(
            f"{shards} ended the worker process {_MOST_ROUNDS} times with nothing else running: out of memory, perhaps. "
            f"{_KEPT}; try fewer --workers"
        )

    return finish_task


class Suspects:
    """Finishes shards that were set aside: their guilty images fail, all others are done."""

    def __init__(self, alone: Alone, observer: Observer) -> None:
        self._alone = alone
        self._observer = observer
        self._guilty = 0
        self._annotator_works = False

    def finish(self, task: TaskSpec) -> Iterator[ShardReport]:
        """Yield the reports of a task's shards.

        Raises
        ------
        RunError
            It is not its images; or there are too many of them.
        """
        for shard in task.shards:
            yield from self._finish(task.job, shard)

    def _finish(self, job: JobSpec, shard: ShardSpec) -> Iterator[ShardReport]:
        reasons: set[str] = set()
        for _ in range(_MOST_ROUNDS):
            try:
                reports: list[ShardReport] = self._alone(annotate_shards, TaskSpec(job, (shard,)))
            except WorkerDiedError:
                guilty = self._guilty_rows(job, shard)
                reasons.update(guilty.values())
                shard = _without(shard, guilty)
                continue
            self._tell(reports, reasons)
            yield from reports
            return
        raise RunError(
            f"shard {shard.shard} has ended its worker process {_MOST_ROUNDS} times with nothing else running, though none of "
            f"its images does so by itself: out of memory, perhaps. {_KEPT}; try a smaller --batch-size or fewer --workers"
        )

    def _guilty_rows(self, job: JobSpec, shard: ShardSpec) -> dict[int, str]:
        self._require_working_annotator(job, shard)
        rows = range(len(shard.places))
        self._observer.phase(f"looking for what ends the worker in shard {shard.shard}")
        found = find_guilty(rows, lambda some: self._kills(trial_of(job, shard, some)))
        self._guilty += len(found)
        if self._guilty > MOST_GUILTY:
            names = ", ".join(str(shard.places[row]) for row in list(found)[:3])
            raise RunError(
                f"{self._guilty} images of this run end the worker process, each by itself (the last ones: {names}): more than "
                f"{MOST_GUILTY} are taken for the annotator's or the machine's fault. {_KEPT}; try a smaller --batch-size, or "
                "take these images out; to go on regardless, run annotate again"
            )
        return {row: f"annotating it {how}, twice" for row, how in found.items()}

    def _require_working_annotator(self, job: JobSpec, shard: ShardSpec) -> None:
        trial = trial_without_images(job, shard)
        if not self._annotator_works and self._kills(trial) and (how := self._kills(trial)):
            raise not_the_images(how)
        self._annotator_works = True

    def _kills(self, trial: Any) -> str:
        try:
            self._alone(try_rows, trial)
        except WorkerDiedError as death:
            return str(death)
        return ""

    def _tell(self, reports: list[ShardReport], reasons: set[str]) -> None:
        for image_id, reason in (failure for report in reports for failure in report.failures):
            if reason in reasons:
                self._observer.warning(f"{image_id}: {reason}: marked as failed")


def _without(shard: ShardSpec, guilty: dict[int, str]) -> ShardSpec:
    places = [ExcludedPlace(guilty[row]) if row in guilty else place for row, place in enumerate(shard.places)]
    return replace(shard, places=tuple(places))
