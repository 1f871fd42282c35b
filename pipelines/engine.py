"""What an engine is: what turns tasks into finished shards. This process is one; a Dask cluster another (`run`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import ShardReport
from labelstore.pipelines.setting_aside import Alone
from labelstore.pipelines.shard import OnShardRows
from labelstore.pipelines.sources.places import Place
from labelstore.pipelines.watchdog import Progress, RowCounter


class Job(Protocol):
    """What all tasks of a run share."""

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """Those that workers must have, of the packages that make the bytes."""
        ...


class Numbered(Protocol):
    """A shard of a task."""

    @property
    def shard(self) -> int:
        """Its number."""
        ...


class Task(Protocol):
    """A few shards, done one after the other; small and plain: it travels to a worker."""

    @property
    def job(self) -> Job:
        """Of the run."""
        ...

    @property
    def shards(self) -> Sequence[Numbered]:
        """At least one."""
        ...


K = TypeVar("K", bound=Task)


@dataclass(frozen=True)
class Work(Generic[K]):
    """What is done with tasks, in plain functions: the same in this process and in a cluster's workers.

    Parameters
    ----------
    name
        For messages: ``annotating``.
    prepare
        Gets at hand, in the process that has the task, what its job needs; may take long.
    finish
        Makes a task's shards; yields the report of each when it is committed.
    rescue
        Makes, of what runs something alone, what finishes a task that has ended its workers: see `setting_aside`.
    """

    name: str
    prepare: Callable[[Any], None]
    finish: Callable[[K, OnShardRows], Iterator[ShardReport]]
    rescue: Callable[[Alone, Observer], Callable[[K], Iterator[ShardReport]]]


class Sampled(Protocol):
    """A spec, a dataclass, of work on annotators that are tried on a few images."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def annotators(self) -> EnsembleSpec:
        """What to load."""
        ...

    @property
    def device(self) -> str:
        """Where to."""
        ...

    @property
    def sample(self) -> tuple[Place, ...]:
        """The images."""
        ...


T = TypeVar("T")
S = TypeVar("S", bound=Sampled)


class Engine(Protocol):
    """Where work runs."""

    def call(self, function: Callable[[S], T], spec: S) -> T:
        """Run one function of a spec and return what it returns. Images of its sample that end the process are left out."""
        ...

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """Start a function in every process; what is returned waits for all of them, and raises what they raise."""
        ...

    def run(self, work: Work[K], tasks: Iterable[K], progress: Progress) -> Iterator[ShardReport]:
        """Finish tasks' shards, in any order."""
        ...


class SerialEngine:
    """This process, one shard after the other: the reference for what a cluster must give. What ends it ends the run."""

    def call(self, function: Callable[[S], T], spec: S) -> T:
        """See `Engine.call`."""
        return function(spec)

    def everywhere(self, function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """See `Engine.everywhere`."""
        return functools.partial(function, *arguments)

    def run(self, work: Work[K], tasks: Iterable[K], progress: Progress) -> Iterator[ShardReport]:
        """See `Engine.run`."""
        for task in tasks:
            work.prepare(task.job)
            yield from work.finish(task, RowCounter(progress))
