"""`labelstore verify`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from labelstore.cli.output import human_count
from labelstore.cli.progress import ProgressBar
from labelstore.cli.telling import people, say_json, tell, warn
from labelstore.credentials import without_credentials

if TYPE_CHECKING:
    from labelstore.pipelines.resampling import Sample
    from labelstore.pipelines.verifying import Problem, Verification

SHOWN_PROBLEMS = 20
EXIT_UNREADABLE = 3
_STATES = ("done", "failed", "pending", "damaged", "unreadable")


workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes that check shards at the same time.  [default: one, for large stores one for every core]",
)


@click.command("verify")
@click.argument("store", default="labels.zarr")
@workers_option
@click.option("--partial", is_flag=True, help="Pending rows are no fault: the store may be unfinished.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Annotate N rows again, chosen at random, and compare.")
@click.option(
    "--images",
    multiple=True,
    metavar="IMAGES",
    help="For --sample: where the images are.  [default: where the store says, on this machine]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="For --sample: the store's annotator, where loading it runs code: package.module:factory, or a program in a file.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="For --sample.  [default: auto]")
@click.option("--links", is_flag=True, help="Read files behind links too: caches of a hub, git-annex and DVC are made of them.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, all problems included.")
def command(
    store: str,
    workers: int | None,
    partial: bool,
    sample: int | None,
    images: tuple[str, ...],
    models: tuple[str, ...],
    device: str | None,
    links: bool,
    as_json: bool,
) -> None:
    """Check every byte of a store, and every value.

    Decodes every chunk, holds every file against its checksum, and looks for values that no label map has, files that are
    missing and files that do not belong there. Exit code 0: the store is whole and right; 1: something is wrong, or rows are
    pending; 3: files cannot be read now (rights, a failing disk, a server that is away), of which nothing is known.

    \b
    Examples:
      labelstore verify
      labelstore verify imagenet.zarr --workers 16 --json | jq '.problems[].id'
      labelstore verify imagenet.zarr --sample 100 --images imagenet/train
      labelstore verify labels.zarr && python train.py
    """
    from labelstore.pipelines.verifying import verify_store

    if sample is None and (images or models or device):
        raise click.UsageError("--images, --model and --device are for --sample, which is not there")
    console = people(stderr=True)
    with ProgressBar(console, "checking", "rows") as bar:
        with unreadable_is_no_damage():
            found = verify_store(store, workers, bar, links=links)
        again = (
            _sample(store, sample, images, models, device, bar) if sample and not (found.problems or found.unreadable) else None
        )
    wrong = bool(found.problems) or (found.rows["pending"] > 0 and not partial) or bool(again and again.problems)
    if as_json:
        said = None if again is None else {**asdict(again), "problems": [_pair_as_dict(*pair) for pair in again.problems]}
        say_json({**as_dict(found, wrong), "sample": said})
    else:
        _show(found, console)
        if again is not None:
            _show_sample(again, console)
        elif sample:
            click.echo("Nothing was annotated again: that is for a store without problems.")
    if found.unreadable:
        raise click.exceptions.Exit(EXIT_UNREADABLE)
    if wrong:
        raise click.exceptions.Exit(1)


@contextmanager
def unreadable_is_no_damage() -> Iterator[None]:
    """End with an exit code of its own where nothing can be read."""
    from labelstore.pipelines.store_files import CannotReadError

    try:
        yield
    except CannotReadError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(EXIT_UNREADABLE) from error


def _sample(
    store: str, count: int, images: tuple[str, ...], models: tuple[str, ...], device: str | None, bar: ProgressBar
) -> Sample:
    from labelstore.pipelines.resampling import sample_again
    from labelstore.pipelines.resources import plan_resources
    from labelstore.pipelines.sources import ImagesSpec

    bar.phase("annotating a sample again")
    resources = plan_resources(0, device or "auto", None)
    return sample_again(store, ImagesSpec(images) if images else None, count, resources, models)


def _show_sample(again: Sample, console: Console) -> None:
    for image_id, message in again.problems[:SHOWN_PROBLEMS]:
        tell(console, f"  {image_id}: {message}")
    differ = f"{len(again.problems)} not the same" if again.problems else "all the same"
    click.echo(
        f"{human_count(again.rows, 'row')} annotated again: {differ}. L1 distance of their soft labels: {again.mean_l1:.4f} on "
        f"average, {again.largest_l1:.4f} at most"
    )


def as_dict(found: Verification, wrong: bool) -> dict[str, Any]:
    """What was found, for machines."""
    rows = {"all": found.info.num_images, **{name: found.rows[name] for name in _STATES}}
    return {
        "store": without_credentials(found.store),
        "ok": not wrong,
        "rows": rows,
        "shards": {"all": found.info.num_shards, "committed": found.committed, "damaged": found.damaged},
        "problems": [_problem_as_dict(problem) for problem in found.problems],
        "unreadable": [_problem_as_dict(problem) for problem in found.unreadable],
    }


def show_problems(found: Verification, console: Console) -> None:
    """Print the first problems, and the first files that cannot be read, for people."""
    for problem in found.problems[:SHOWN_PROBLEMS]:
        tell(console, f"  {_in_words(problem)}")
    more = len(found.problems) - SHOWN_PROBLEMS
    if more > 0:
        tell(console, f"  and {more} more: labelstore verify {shlex.quote(without_credentials(found.store))} --json")
    if found.unreadable:
        warn(console, f"{human_count(len(found.unreadable), 'file')} cannot be read now, of which nothing is known:")
    for problem in found.unreadable[:SHOWN_PROBLEMS]:
        tell(console, f"  {problem.message}")


def _show(found: Verification, console: Console) -> None:
    rows = found.rows
    if found.problems:
        warn(console, f"{human_count(len(found.problems), 'problem')} in {found.store}:")
    show_problems(found, console)
    counts = ", ".join(f"{rows[name]:,} {name}" for name in _STATES if rows[name] or name not in _STATES[3:])
    click.echo(f"{found.info.num_images:,} rows: {counts}")
    click.echo(f"{found.committed:,} of {found.info.num_shards:,} shards are committed")
    if found.problems:
        mendable = len(found.problems) > len(found.strangers)
        store = shlex.quote(without_credentials(found.store))
        click.echo(f"Next:  labelstore repair {store}" if mendable else "Nothing that `repair` could mend.")
    elif found.unreadable:
        click.echo("Next:  see to the disk (`dmesg`), or mount it anew, and verify again.")
    elif rows["pending"]:
        click.echo("What is committed is right. Run annotate again to make the pending rows.")
    else:
        click.echo("Every byte is as it was written, and every value is one that a label map has.")


def _in_words(problem: Problem) -> str:
    row = "" if problem.row is None else f" row {problem.row}"
    image = "" if problem.image_id is None else f" ({problem.image_id})"
    return f"{problem.file}:{row}{image}{':' if row or image else ''} {problem.message}"


def _problem_as_dict(problem: Problem) -> dict[str, Any]:
    said = asdict(problem)
    return {"id": said.pop("image_id"), **said}


def _pair_as_dict(image_id: str, message: str) -> dict[str, str]:
    return {"id": image_id, "message": message}
