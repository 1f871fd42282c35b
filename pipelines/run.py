"""Engines: what turns shard specs into finished shards, in this process or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from distributed import Client, KilledWorker, as_completed, get_worker

from labelstore.errors import RunError
from labelstore.pipelines.plan import ShardReport, TaskSpec
from labelstore.pipelines.shard import annotate_shards

T = TypeVar("T")
Progress = Callable[[int, int, int], None]
"""Called with a shard, and how many of its rows are done and failed so far. May come from another thread."""

_TOPIC = "labelstore-progress"
_SECONDS_BETWEEN_EVENTS = 0.25
_SECONDS_BETWEEN_LOOKS = 1.0
_TASKS_A_WORKER = 3
"""In flight, one in hand and two waiting: a worker stays busy, and the client's memory does not grow with the plan."""


class Engine(Protocol):
    """Where work runs."""

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run one function and return what it returns."""
        ...

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """Start a function in every process; what is returned waits for all of them, and raises what they raise."""
        ...

    def run(self, specs: Iterable[TaskSpec], progress: Progress) -> Iterator[ShardReport]:
        """Finish tasks' shards, in any order."""
        ...


class SerialEngine:
    """This process, one shard after the other: the reference for what a cluster must give."""

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """See `Engine.call`."""
        return function(*arguments)

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """See `Engine.everywhere`."""
        return functools.partial(function, *arguments)

    def run(self, specs: Iterable[TaskSpec], progress: Progress) -> Iterator[ShardReport]:
        """See `Engine.run`."""
        for spec in specs:
            yield from annotate_shards(spec, _Counter(progress))


class DaskEngine:
    """A Dask cluster. The client may be anybody's; it is not closed here."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """See `Engine.call`."""
        result: T = self._result(self._client.submit(function, *arguments, pure=False), function.__name__)
        return result

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """See `Engine.everywhere`. A worker that dies meanwhile is not waited for: it comes back under another address."""
        futures = {
            worker: self._client.submit(function, *arguments, workers=[worker], pure=False) for worker in self._workers()
        }

        def wait_for_all() -> None:
            for worker, future in futures.items():
                while not future.done() and worker in self._workers():
                    with contextlib.suppress(TimeoutError):
                        future.exception(timeout=_SECONDS_BETWEEN_LOOKS)
                if future.done():
                    self._result(future, function.__name__)

        return wait_for_all

    def run(self, specs: Iterable[TaskSpec], progress: Progress) -> Iterator[ShardReport]:
        """See `Engine.run`. Submits a bounded window of tasks; each returns its small report, never arrays."""
        waiting = iter(specs)
        window = _TASKS_A_WORKER * len(self._workers())
        names: dict[Any, str] = {}
        with self._watched(progress):
            running = as_completed(loop=self._client.loop)
            for spec in itertools.islice(waiting, window):
                running.add(self._submit(spec, names))
            for future in running:
                yield from self._result(future, names.pop(future.key))
                for spec in itertools.islice(waiting, 1):
                    running.add(self._submit(spec, names))

    def _workers(self) -> Collection[str]:
        """The addresses of those that are there now."""
        found: Collection[str] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _submit(self, spec: TaskSpec, names: dict[Any, str]) -> Any:
        future = self._client.submit(_annotate_on_worker, spec, pure=False)
        first, last = spec.shards[0].shard, spec.shards[-1].shard
        names[future.key] = f"shard {first}" if first == last else f"shards {first} to {last}"
        return future

    def _result(self, future: Any, what: str) -> Any:
        try:
            return future.result()
        except KilledWorker as error:
            raise RunError(
                f"{what}: the worker process died again and again (last on {error.last_worker.address}): out of memory, or "
                "an image or model that crashes it. Committed shards are kept; try a smaller --batch-size or fewer --workers"
            ) from error

    @contextmanager
    def _watched(self, progress: Progress) -> Iterator[None]:
        self._client.subscribe_topic(_TOPIC, lambda event: progress(*event[1]))
        try:
            yield
        finally:
            self._client.unsubscribe_topic(_TOPIC)


def _annotate_on_worker(spec: TaskSpec) -> list[ShardReport]:
    worker = get_worker()
    return list(annotate_shards(spec, _Counter(lambda *counts: worker.log_event(_TOPIC, list(counts)))))


class _Counter:
    """Adds up shards' rows and passes the sums on, but not more often than a person can see."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counts: dict[int, tuple[int, int]] = {}
        self._last = time.monotonic()

    def __call__(self, shard: int, done: int, failed: int) -> None:
        before = self._counts.get(shard, (0, 0))
        self._counts[shard] = before[0] + done, before[1] + failed
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_EVENTS:
            self._last = time.monotonic()
            for changed, counts in self._counts.items():
                self._progress(changed, *counts)
            self._counts = {shard: self._counts[shard]}
