"""Signs of life: what workers tell while they have a task, and who ends those that have stopped telling."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, get_worker

from labelstore.errors import RunError

Progress = Callable[[int, int, int], None]
"""Called with a shard, and how many of its rows are done and failed so far. May come from another thread."""

_TOPIC = "labelstore-progress"
_SECONDS_BETWEEN_EVENTS = 0.25
_SECONDS_BETWEEN_LOOKS = 1.0
_LONGEST_START, _LONGEST_LOAD = 60.0, 600.0
"""Seconds that a worker has at least to start, and to load the annotator, however short a time it has for images."""


class Watchdog:
    """Knows when each running task was heard of last; ends worker processes that have a task and say nothing for too long.

    `look` is to be called every now and then, by one thread; what workers tell comes in another one.

    Parameters
    ----------
    timeout
        Seconds; 0: never. For so long there may be no worker at all, too; but at least for as long as it takes to start one.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout or math.inf
        self._longest_load = max(self._timeout, _LONGEST_LOAD)
        self._longest_absence = max(self._timeout, _LONGEST_START)
        self._lock = threading.Lock()
        self._expected: dict[str, tuple[str, float]] = {}
        self._hung: set[str] = set()
        self._looked = -math.inf
        self._deserted: float | None = None

    @contextmanager
    def watching(self, progress: Progress | None = None) -> Iterator[None]:
        """Listen to the workers, and pass on what they tell of shards."""

        def hear(event: tuple[float, list[Any]]) -> None:
            worker, key, loading, *counts = event[1]
            self._sign(worker, key, self._longest_load if loading else self._timeout)
            if counts and progress is not None:
                progress(*counts)

        self._deserted = None
        self._client.subscribe_topic(_TOPIC, hear)
        try:
            yield
        finally:
            if self._client.status == "running":
                self._client.unsubscribe_topic(_TOPIC)

    def look(self) -> None:
        """End hung workers.

        Raises
        ------
        RunError
            One that cannot be ended; or there have been no workers for too long.
        """
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        processing = self._client.processing()
        if processing:
            self._deserted = None
        else:
            self._deserted = self._deserted or now
        if self._deserted is not None and now - self._deserted > self._longest_absence:
            raise RunError(
                f"there has been no worker for {self._longest_absence:g} s. What is committed is kept: start workers, and run "
                "the same command again"
            )
        with self._lock:
            silent = {key: worker for key, (worker, until) in self._expected.items() if now > until}
        for key, worker in silent.items():
            if key in processing.get(worker, ()):
                self._end(worker, key)

    def has_hung(self, key: str) -> bool:
        """Whether a worker was ended because this task of it had stopped."""
        return key in self._hung

    def forget(self, key: str) -> None:
        """A task is over."""
        with self._lock:
            self._expected.pop(key, None)

    def _sign(self, worker: str, key: str, seconds: float) -> None:
        """A task goes on, and is to tell again within so many seconds."""
        with self._lock:
            self._expected[key] = worker, time.monotonic() + seconds

    def _end(self, worker: str, key: str) -> None:
        self._sign(worker, key, self._timeout)
        self._hung.add(key)
        try:
            nannies = self._client.run(_end_process, worker, workers=[worker], nanny=True, on_error="return")
        except KeyError:  # it has gone by itself
            return
        if not nannies:
            raise RunError(
                f"the worker {worker} has made no progress for {self._timeout:g} s, and has no nanny that could end it. What "
                "is committed is kept: end it yourself, start workers with a nanny, and run the same command again"
            )


def _end_process(worker: str, dask_worker: Any) -> None:
    """End a nanny's worker process, if it is still that one; the nanny then starts another."""
    process = dask_worker.process
    pid = process.pid if process is not None and process.worker_address == worker else None
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def sign_of_life() -> Callable[..., None]:
    """Return what tells the client that this worker's task goes on: loads the annotator, or has done so much of a shard."""
    worker = get_worker()
    key = worker.get_current_task()

    def tell(*counts: int, loading: bool = False) -> None:
        worker.log_event(_TOPIC, [worker.address, key, loading, *counts])

    return tell


class RowCounter:
    """Adds up shards' rows and passes the sums on, but not more often than a person can see."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counts: dict[int, tuple[int, int]] = {}
        self._last = time.monotonic()

    def __call__(self, shard: int, done: int, failed: int) -> None:
        """So many more rows of a shard are done and failed."""
        before = self._counts.get(shard, (0, 0))
        self._counts[shard] = before[0] + done, before[1] + failed
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_EVENTS:
            self._last = time.monotonic()
            for changed, counts in self._counts.items():
                self._progress(changed, *counts)
            self._counts = {shard: self._counts[shard]}
