"""`labelstore repair`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from labelstore.cli.output import human_count
from labelstore.cli.progress import ProgressBar
from labelstore.cli.telling import warn
from labelstore.cli.verify import as_dict, show_problems, workers_option

if TYPE_CHECKING:
    from labelstore.pipelines.repairing import Repair


@click.command("repair")
@click.argument("store", default="labels.zarr")
@workers_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(store: str, workers: int | None, as_json: bool) -> None:
    """Set what is damaged back to pending, for annotate to make again.

    Checks the store as `verify` does. Damaged shards lose their commit and nothing else; damaged metadata is restored from its
    copy; damaged ids and labels are removed, and annotate restores them from the images; what interrupted runs have left over
    is removed. Exit code 0: what is left can be read, or made by annotate; 1: something remains that only you can deal with.

    \b
    Examples:
      labelstore repair
      labelstore repair imagenet.zarr && labelstore annotate imagenet/train --store imagenet.zarr
    """
    from labelstore.pipelines.repairing import repair_store

    console = Console(stderr=True)
    with ProgressBar(console, "checking", "rows") as bar:
        done = repair_store(store, workers, bar)
    click.echo(json.dumps(_as_dict(done), indent=2)) if as_json else _show(done, console)
    if done.kept:
        raise click.exceptions.Exit(1)


def _as_dict(done: Repair) -> dict[str, Any]:
    return {
        **as_dict(done.found, bool(done.kept)),
        "repaired": {
            "shards": done.shards,
            "index_files": done.index_files,
            "left_overs": done.left_overs,
            "metadata": done.metadata,
        },
        "kept": list(done.kept),
    }


def _show(done: Repair, console: Console) -> None:
    found = done.found
    if not found.problems:
        click.echo("Nothing to repair.")
        return
    warn(console, f"{human_count(len(found.problems), 'problem')} in {found.store}:")
    show_problems(found, console)
    for count, what, outcome in (
        (done.shards, "damaged shard", "pending again"),
        (done.index_files, "damaged index file", "removed, for annotate to restore from the images"),
        (done.left_overs, "left-over file", "removed"),
        (int(done.metadata), "set of metadata files", "restored"),
    ):
        if count:
            click.echo(f"{human_count(count, what)}: {outcome}")
    if done.kept:
        click.echo(f"{human_count(len(done.kept), 'file')} of somebody else: kept; to be removed by hand if nobody needs them")
    if done.shards or done.index_files or found.rows["pending"]:
        click.echo(f"Next:  labelstore annotate IMAGES --store {shlex.quote(found.store)}")
