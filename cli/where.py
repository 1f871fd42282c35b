"""The options that say where annotators run: on which device, and by which workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from labelstore.cli.cluster_options import ClusterChoice, Option, add_choice, cluster_options
from labelstore.pipelines import defaults

if TYPE_CHECKING:
    from labelstore.pipelines.resources import Resources

_OPTIONS: tuple[Option, ...] = (
    *cluster_options(
        "Worker processes; 0: this process alone, and an image that kills it ends the run.  "
        "[default: one a GPU, or one for every 4 cores]"
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        metavar="B",
        help="Images a forward pass; halved when memory runs out.  "
        f"[default: {defaults.CUDA_BATCH_SIZE} on a GPU, {defaults.CPU_BATCH_SIZE} or fewer on the CPU]",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option("--compile", "compiled", is_flag=True, help="Use torch.compile: minutes at the start, faster from then on."),
)


@dataclass(frozen=True)
class Where(ClusterChoice):
    """What the user has said of it; see the options' help."""

    batch_size: int | None
    device: str
    compiled: bool

    def annotators_resources(self) -> Resources:
        """Return `resources` for the device and batches that were asked for."""
        return self.resources(self.device, self.batch_size, compiled=self.compiled)


def where_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one ``where``, checked."""
    return add_choice(command, "where", Where, _OPTIONS, Where.check)
