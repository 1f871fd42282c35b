"""What an engine is: what turns shard specs into finished shards. This process is one; a Dask cluster another (`run`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar

from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.plan import ShardReport, TaskSpec
from labelstore.pipelines.shard import annotate_shards
from labelstore.pipelines.sources.places import Place
from labelstore.pipelines.watchdog import Progress, RowCounter


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

    def run(self, specs: Iterable[TaskSpec], progress: Progress) -> Iterator[ShardReport]:
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

    def run(self, specs: Iterable[TaskSpec], progress: Progress) -> Iterator[ShardReport]:
        """See `Engine.run`."""
        for spec in specs:
            yield from annotate_shards(spec, RowCounter(progress))
