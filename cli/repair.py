"""`labelstore repair`."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from labelstore.cli.output import human_count
from labelstore.cli.progress import ProgressBar
from labelstore.cli.telling import people, say_json, warn
from labelstore.cli.verify import EXIT_UNREADABLE, as_dict, show_problems, unreadable_is_no_damage, workers_option
from labelstore.credentials import without_credentials

if TYPE_CHECKING:
    from labelstore.pipelines.repairing import Repair


@click.command("repair")
@click.argument("store", default="labels.zarr")
@workers_option
@click.option("--yes", is_flag=True, help="Give damaged shards up without a question, also where they are more than half.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(store: str, workers: int | None, yes: bool, as_json: bool) -> None:
    """Set what is damaged back to pending, for annotate to make again.

    Checks the store as `verify` does. Commits of damaged shards are set aside, as are damaged ids and labels, which annotate
    restores from the images; damaged metadata is restored from its copy; what interrupted runs have left over is removed. What
    was set aside and is right after all comes back. Exit code 0: what is left can be read, or made by annotate; 1: something
    remains that only you can deal with; 3: files cannot be read now, and were left alone.

    \b
    Examples:
      labelstore repair
      labelstore repair imagenet.zarr && labelstore annotate imagenet/train --store imagenet.zarr
    """
    from labelstore.pipelines.repairing import repair_store

    console = people(stderr=True)

    def agree(most: str) -> bool:
        bar.close()
        return yes or (sys.stdin.isatty() and click.confirm(f"{without_credentials(store)}: {most}. Do so?", err=True))

    with ProgressBar(console, "checking", "rows") as bar, unreadable_is_no_damage():
        done = repair_store(store, workers, bar, agree)
    say_json(_as_dict(done)) if as_json else _show(done, console)
    if done.found.unreadable:
        raise click.exceptions.Exit(EXIT_UNREADABLE)
    if done.kept:
        raise click.exceptions.Exit(1)


def _as_dict(done: Repair) -> dict[str, Any]:
    return {
        **as_dict(done.found, bool(done.kept or done.found.unreadable)),
        "repaired": {
            "shards": done.shards,
            "index_files": done.index_files,
            "left_overs": done.left_overs,
            "metadata": done.metadata,
            "brought_back": done.brought_back,
        },
        "kept": list(done.kept),
    }


def _show(done: Repair, console: Console) -> None:
    found = done.found
    if not (found.problems or found.unreadable or done.brought_back):
        click.echo("Nothing to repair.")
        return
    if found.problems:
        warn(console, f"{human_count(len(found.problems), 'problem')} in {found.store}:")
    show_problems(found, console)
    for count, what, outcome in (
        (done.brought_back, "file that was set aside", "right after all, and brought back"),
        (done.shards, "damaged shard", "pending again"),
        (done.index_files, "damaged index file", "set aside, for annotate to restore from the images"),
        (done.left_overs, "left-over file", "removed"),
        (int(done.metadata), "set of metadata files", "restored"),
    ):
        if count:
            click.echo(f"{human_count(count, what)}: {outcome}")
    if done.kept:
        click.echo(f"{human_count(len(done.kept), 'file')} of somebody else: kept; to be removed by hand if nobody needs them")
    if done.shards or done.index_files or found.rows["pending"]:
        click.echo(f"Next:  labelstore annotate IMAGES --store {shlex.quote(without_credentials(found.store))}")
