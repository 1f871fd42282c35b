"""Which engine a run has: this process, a cluster on this machine, or somebody's cluster, whose workers are looked at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.cluster import is_open_to_others, local_cluster, remote_cluster
from labelstore.pipelines.engine import Engine, SerialEngine
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.preflight import look_at_workers
from labelstore.pipelines.resources import Resources, keep_the_heap
from labelstore.pipelines.run import DaskEngine
from labelstore.pipelines.sources import Place


@dataclass(frozen=True)
class Needs:
    """What every worker must be able to load, if anything, to write and to read: some of the images."""

    annotators: EnsembleSpec | None
    store: str
    images: Sequence[Place]


@contextmanager
def open_engine(resources: Resources, needs: Needs, observer: Observer) -> Iterator[tuple[Engine, Resources]]:
    """Yield an engine, and what the run uses of it.

    Raises
    ------
    OptionError, RunError, StoreWriteError
        There are no workers, or not of the kind that is wanted, or they cannot do the work.
    """
    if resources.cluster is not None:
        observer.phase(f"connecting to {resources.cluster.scheduler}")
        with remote_cluster(resources.cluster) as client:
            if is_open_to_others(resources.cluster.scheduler):
                observer.warning(
                    f"--scheduler {resources.cluster.scheduler}: without TLS, any program that reaches this cluster's ports "
                    "can run code on its workers. Use tls://, or a network closed to others"
                )
            observer.dashboard(client.dashboard_link)
            engine = DaskEngine(client, observer, resources.worker_timeout)
            yield engine, look_at_workers(engine, needs.annotators, needs.store, needs.images, resources, observer)
    elif resources.workers:
        observer.phase(f"starting {resources.workers} worker{'s' if resources.workers > 1 else ''}")
        with local_cluster(resources) as client:
            observer.dashboard(client.dashboard_link)
            engine = DaskEngine(client, observer, resources.worker_timeout)
            yield engine, replace(resources, workers=engine.num_workers)
    else:
        keep_the_heap()
        yield SerialEngine(), resources
