"""The engine that runs tasks on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from distributed import CancelledError, Client, Future, KilledWorker, wait

from labelstore.errors import LabelStoreError, RunError
from labelstore.pipelines.cluster import worker_addresses
from labelstore.pipelines.engine import K, Sampled, Task, Work
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import ShardReport
from labelstore.pipelines.preflight import require_versions
from labelstore.pipelines.setting_aside import WorkerDiedError, not_the_images, survivors
from labelstore.pipelines.shard import load_annotators
from labelstore.pipelines.sources.places import BlackPlace, Place
from labelstore.pipelines.watchdog import Progress, RowCounter, Watchdog, sign_of_life

T = TypeVar("T")
S = TypeVar("S", bound=Sampled)

_SECONDS_BETWEEN_LOOKS = 1.0
_TASKS_A_WORKER = 3
"""In flight, one in hand and two waiting: a worker stays busy, and the client's memory does not grow with the plan."""
_MOST_ASIDE = 16
"""Tasks that are set aside before it is looked at why."""


class DaskEngine:
    """A Dask cluster. The client may be anybody's; it is not closed here.

    Parameters
    ----------
    worker_timeout
        Seconds after which a worker that has a task and makes no progress is ended; 0: never.
    """

    def __init__(self, client: Client, observer: Observer, worker_timeout: float) -> None:
        self._client = client
        self._observer = observer
        self._timeout = worker_timeout
        self._watchdog = Watchdog(client, worker_timeout)
        self._counted, self._tasks = -math.inf, 0

    @property
    def num_workers(self) -> int:
        """How many there are now."""
        return len(self._workers())

    def call(self, function: Callable[[S], T], spec: S) -> T:
        """See `Engine.call`."""
        with self._scheduler_in_words(), self._watchdog.watching():
            with contextlib.suppress(WorkerDiedError):
                return self._try_sample(function, spec)
            self._observer.phase("looking for the image that ends the worker")

            def kills(sample: Sequence[Place]) -> str:
                try:
                    self._try_sample(function, replace(spec, sample=tuple(sample)))
                except WorkerDiedError as death:
                    return str(death)
                return ""

            if kills([BlackPlace()]) and (how := kills([BlackPlace()])):
                raise not_the_images(how)
            try:
                return self._try_sample(function, replace(spec, sample=survivors(spec.sample, kills)))
            except WorkerDiedError as death:
                raise RunError(
                    f"trying the annotator on {len(spec.sample)} images {death} again and again, though none of them does so "
                    "by itself: out of memory, perhaps; try fewer --workers"
                ) from death

    def versions(self, packages: tuple[str, ...]) -> dict[str, dict[str, str | None]]:
        """See `labelstore.pipelines.preflight.Workers.versions`."""
        with self._scheduler_in_words():
            found: Any = self._client.get_versions(packages=list(packages))
        return {worker: said["packages"] for worker, said in found["workers"].items()}

    def ask_all(self, function: Callable[[Any], T], spec: Any) -> dict[str, T | Exception]:
        """See `labelstore.pipelines.preflight.Workers.ask_all`. Who leaves meanwhile does not count."""
        answers: dict[str, T | Exception] = {}
        with self._scheduler_in_words():
            asked = {worker: self._submit_to(worker, function, spec) for worker in self._workers()}
            for worker, future in asked.items():
                while not future.done() and worker in self._workers():
                    self._finished([future])
                if future.done():
                    try:
                        answers[worker] = self._result(future)
                    except WorkerDiedError:
                        continue
                    except Exception as error:
                        answers[worker] = error
        return answers

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """See `Engine.everywhere`. A worker that dies meanwhile is not waited for: it comes back under another address."""
        with self._scheduler_in_words():
            futures = {worker: self._submit_to(worker, function, *arguments) for worker in self._workers()}

        def wait_for_all() -> None:
            with self._scheduler_in_words():
                for worker, future in futures.items():
                    while not future.done() and worker in self._workers():
                        self._finished([future])
                    if future.done():
                        with contextlib.suppress(WorkerDiedError):
                            self._result(future)

        return wait_for_all

    def run(self, work: Work[K], tasks: Iterable[K], progress: Progress) -> Iterator[ShardReport]:
        """See `Engine.run`. Submits a bounded window of tasks; each returns its small report, never arrays."""
        waiting = iter(tasks)
        running: dict[Future[Any], K] = {}
        aside: list[K] = []
        rescue = work.rescue(functools.partial(self._once, _on_worker, work.prepare), self._observer)
        most_aside = 1  # where nothing has succeeded yet, it may be that nothing will

        def submit() -> None:
            for task in itertools.islice(waiting, max(self._window() - len(running), 0)):
                running[self._client.submit(_on_worker, work.prepare, work.finish, task, pure=False)] = task

        with self._scheduler_in_words(), self._watchdog.watching(progress):
            submit()
            while running:
                for future in self._finished(running):
                    task = running.pop(future)
                    try:
                        yield from self._result(future)
                        most_aside = _MOST_ASIDE
                    except WorkerDiedError as death:
                        self._observer.warning(f"{_shards(task)}: {work.name} {death}: set aside")
                        aside.append(task)
                if len(aside) < most_aside:
                    submit()
                if not running:
                    for task in sorted(aside, key=lambda task: task.shards[0].shard):
                        yield from rescue(task)
                    aside.clear()
                    submit()

    def _window(self) -> int:
        """How many tasks may be submitted at a time: as many as suit the workers that are there now, or were a second ago."""
        if time.monotonic() - self._counted >= _SECONDS_BETWEEN_LOOKS:
            self._counted, self._tasks = time.monotonic(), _TASKS_A_WORKER * max(self.num_workers, 1)
        return self._tasks

    def _try_sample(self, function: Callable[[S], T], spec: S) -> T:
        result: T = self._once(_on_sample, function, spec)
        return result

    def _once(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on one worker; if that dies, nowhere else."""
        worker = self._any_worker()
        future = self._submit_to(worker, function, *arguments)
        try:
            while not self._finished([future]):
                if worker not in self._workers() and not future.done():
                    raise WorkerDiedError(self._how(future, 1))
            return self._result(future)
        finally:
            self._watchdog.forget(str(future.key))
            future.release()

    def _any_worker(self) -> str:
        while True:
            for worker in self._workers():
                return worker
            self._watchdog.look()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _workers(self) -> Collection[str]:
        """The addresses of those that are there now."""
        return worker_addresses(self._client)

    def _submit_to(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._client.submit(function, *arguments, workers=[worker], pure=False)

    def _finished(self, futures: Iterable[Future[Any]]) -> Collection[Future[Any]]:
        """Wait a little; return those that are finished."""
        self._watchdog.look()
        with self._client.as_current():
            try:
                found = wait(list(futures), timeout=_SECONDS_BETWEEN_LOOKS, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return ()
        done: Collection[Future[Any]] = found.done
        return done

    def _result(self, future: Future[Any]) -> Any:
        """Return a finished task's result, or raise what it has raised."""
        try:
            while True:
                try:
                    return future.result(timeout=_SECONDS_BETWEEN_LOOKS)
                except TimeoutError:  # the worker that had it is gone: it is made again
                    if future.status == "error":
                        raise
                    self._watchdog.look()
        except KilledWorker as error:
            raise WorkerDiedError(self._how(future, error.allowed_failures + 1)) from error
        finally:
            self._watchdog.forget(str(future.key))

    def _how(self, future: Future[Any], deaths: int) -> str:
        if self._watchdog.has_hung(str(future.key)):
            return f"did not finish within {self._timeout:g} s" + (f", {deaths} times" if deaths > 1 else "")
        return "ended the worker process" + (f" {deaths} times" if deaths > 1 else "")

    @contextmanager
    def _scheduler_in_words(self) -> Iterator[None]:
        """Say what it means that the scheduler does not answer."""
        try:
            yield
        except LabelStoreError:
            raise
        except (Exception, CancelledError) as error:
            if self._client.status == "running" and not isinstance(error, CancelledError):
                raise
            raise RunError(
                "the Dask scheduler went away. What is committed is kept: when it is back, run the same command again"
            ) from error


def _on_worker(prepare: Callable[[Any], None], function: Callable[..., Any], spec: Any) -> Any:
    """Run a task over shards on a worker."""
    require_versions(dict(spec.job.versions))
    tell = sign_of_life()
    tell(loading=True)
    prepare(spec.job)
    tell()
    found = function(spec, RowCounter(tell))
    return found if found is None else list(found)


def _on_sample(function: Callable[[S], T], spec: S) -> T:
    """Run a task over a few images on a worker. What it takes to load the annotator, a download perhaps, does not count."""
    load_annotators(spec.annotators, spec.device)
    sign_of_life()()
    return function(spec)


def _shards(task: Task) -> str:
    first, last = task.shards[0].shard, task.shards[-1].shard
    return f"shard {first}" if first == last else f"shards {first} to {last}"
