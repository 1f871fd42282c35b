"""The options that say who does the work: workers here, or those of somebody's cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labelstore.pipelines import defaults

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from labelstore.pipelines.resources import Resources

C = TypeVar("C", bound="DataclassInstance")
Option = Callable[[Callable[..., None]], Callable[..., None]]
_FILE = click.Path(exists=True, dir_okay=False)


def cluster_options(workers_help: str) -> tuple[Option, ...]:
    """Return the options, in the order in which they are shown."""
    return (
        click.option("--workers", type=click.IntRange(0), help=workers_help),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Use the workers of a Dask cluster that is there already, such as tcp://10.0.0.1:8786; instead of --workers.",
        ),
        click.option(
            "--scheduler-file",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Likewise: the file in which `dask scheduler --scheduler-file FILE` has written its address.",
        ),
        click.option(
            "--tls-ca-file",
            metavar="FILE",
            type=_FILE,
            help="For tls://: who vouches for the scheduler (PEM).  [default: as Dask is configured]",
        ),
        click.option("--tls-cert", metavar="FILE", type=_FILE, help="This command's own certificate (PEM)."),
        click.option("--tls-key", metavar="FILE", type=_FILE, help="The key of that certificate (PEM)."),
        click.option(
            "--worker-timeout",
            type=click.FloatRange(0),
            default=defaults.WORKER_TIMEOUT,
            show_default=True,
            metavar="SECONDS",
            help="End a worker process that has work and makes no progress for so long; 0: never.",
        ),
    )


@dataclass(frozen=True)
class ClusterChoice:
    """What the user has said of it; see the options' help."""

    workers: int | None
    scheduler: str | None
    scheduler_file: str | None
    tls_ca_file: str | None
    tls_cert: str | None
    tls_key: str | None
    worker_timeout: float

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises
        ------
        click.UsageError
        """
        elsewhere = self.scheduler is not None or self.scheduler_file is not None
        if self.scheduler is not None and self.scheduler_file is not None:
            raise click.UsageError("--scheduler and --scheduler-file both say where the scheduler is: leave one of them out")
        if self.workers is not None and elsewhere:
            raise click.UsageError("--workers starts workers here, --scheduler uses those of a cluster: leave one of them out")
        if not elsewhere and (self.tls_ca_file or self.tls_cert or self.tls_key):
            raise click.UsageError("--tls-ca-file, --tls-cert, --tls-key: go with --scheduler tls://...")

    def resources_without_annotators(self) -> Resources:
        """Return what a run may use that is nothing but reading and writing: here, a worker a core unless told."""
        from labelstore.threads import usable_cores

        elsewhere = self.scheduler is not None or self.scheduler_file is not None
        usual = self.workers if self.workers is not None or elsewhere else usable_cores()
        return replace(self, workers=usual).resources("cpu")

    def resources(self, device: str, batch_size: int | None = None, *, compiled: bool = False) -> Resources:
        """Return what a run may use, as far as that is known here.

        Raises
        ------
        OptionError
        """
        from labelstore.pipelines.cluster import read_scheduler_file  # torch and Dask take seconds: not for --help
        from labelstore.pipelines.resources import ClusterAddress, plan_resources, resources_elsewhere

        address = self.scheduler if self.scheduler_file is None else read_scheduler_file(self.scheduler_file)
        if address is None:
            planned = plan_resources(self.workers, device, batch_size, compiled=compiled)
        else:
            cluster = ClusterAddress(address, self.tls_ca_file, self.tls_cert, self.tls_key)
            planned = resources_elsewhere(cluster, device, batch_size, compiled=compiled)
        return replace(planned, worker_timeout=self.worker_timeout)


def add_options(command: Callable[..., None], options: tuple[Option, ...]) -> Callable[..., None]:
    """Add options to a command, to be shown in this order."""
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    found: Callable[..., None] = decorated
    return found


def add_choice(
    command: Callable[..., None],
    name: str,
    choice: type[C],
    options: tuple[Option, ...],
    check: Callable[[C], None] | None = None,
) -> Callable[..., None]:
    """Add options to a command, which gets them as one object: a dataclass that has a field for each, checked."""

    @functools.wraps(command)
    def with_choice(*arguments: Any, **given: Any) -> None:
        made = choice(**{field.name: given.pop(field.name) for field in fields(choice)})
        if check is not None:
            check(made)
        command(*arguments, **{name: made}, **given)

    return add_options(with_choice, options)


def with_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command that reads and writes maps; it gets them as one ``cluster``, checked."""
    options = cluster_options("Worker processes; 0: this process alone.  [default: one a core]")
    return add_choice(command, "cluster", ClusterChoice, options, ClusterChoice.check)
