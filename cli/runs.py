"""Commands that make or fill a store: how a run is watched, and what it comes to, for people and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from labelstore.cli.cluster_options import Option, add_choice
from labelstore.cli.leftout import agreement_as_dict, doubt_words
from labelstore.cli.output import human_bytes, human_count, human_seconds
from labelstore.cli.telling import people, say_json, tell, warn
from labelstore.cli.watching import watched
from labelstore.credentials import without_credentials
from labelstore.pipelines.observer import Observer
from labelstore.records import LabelDistance

if TYPE_CHECKING:
    from labelstore.pipelines.summary import Summary

_SHOWN_FAILURES = 10
_OPTIONS: tuple[Option, ...] = (
    click.option("--strict", is_flag=True, help="Exit with 1 if any image failed."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="json: instead of the progress bar a line of JSON to stderr for everything that happens.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help="Serve the run's counts to Prometheus, at http://127.0.0.1:PORT/metrics.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)


@dataclass(frozen=True)
class RunChoice:
    """What the user has said of how to be told; see the options' help."""

    strict: bool
    log_format: str
    metrics_port: int | None
    as_json: bool

    def console(self) -> Console:
        """Return where people are told; nothing is, where a log of JSON is wanted."""
        return people(stderr=True, quiet=self.log_format == "json")

    def show(self, run: Callable[[Observer], Summary], doing: str, done: str) -> None:
        """Run, and say what it came to: ``importing`` images that are then ``imported``.

        Raises
        ------
        click.ClickException
            All images failed; with ``--strict`` any.
        """
        console = self.console()
        with watched(console, self.log_format, self.metrics_port, doing) as (observer, log):
            summary = run(observer)
            if log is not None:
                log.finished(_as_dict(summary))
        say_json(_as_dict(summary)) if self.as_json else _show(summary, console, done)
        if summary.counts.failed and (self.strict or not summary.counts.done):
            raise click.ClickException(f"{summary.counts.failed} of {summary.counts.rows} images failed")


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one ``how``."""
    return add_choice(command, "how", RunChoice, _OPTIONS)


def _show(summary: Summary, console: Console, done: str) -> None:
    counts = summary.counts
    if not summary.new_rows and not counts.pending:
        tell(console, f"Nothing to do: all {counts.rows} images are in {summary.store}.")
    _show_failures(summary, console)
    rate = f", {summary.new_rows / summary.seconds:.1f} images/s" if summary.new_rows else ""
    size = f", {counts.bytes_a_map:,.0f} bytes a map" if counts.bytes_a_map else ""
    click.echo(f"{counts.done} of {counts.rows} images {done}, {counts.failed} failed")
    if summary.new_rows:
        click.echo(f"This run: {human_count(summary.new_rows, 'image')} in {human_seconds(summary.seconds)}{rate}")
    _show_distance(summary)
    _show_agreement(summary)
    click.echo(f"Store: {without_credentials(summary.store)} ({human_bytes(counts.size_bytes)}{size})")
    if summary.example_id is not None:
        store = "" if summary.store == "labels.zarr" else f" --store {shlex.quote(without_credentials(summary.store))}"
        click.echo(f"Next:  labelstore inspect {shlex.quote(summary.example_id)}{store}")


def _show_distance(summary: Summary) -> None:
    found = summary.info.distance
    if found is not None and summary.new_rows:
        images = human_count(found.images, "image")
        if found.flat(summary.info.num_classes):
            click.echo(_flat_in_words(found, summary.info.num_classes))
            return
        click.echo(
            f"Distance to the annotator's own labels: L1 {found.l1:.3f}, KL {found.kl:.3f}, same best class for "
            f"{found.agreement:.0%} of crops ({images})"
        )


def _flat_in_words(found: LabelDistance, num_classes: int) -> str:
    """A distance of flat labels would reassure: they are all alike."""
    return (
        f"Flat labels: the annotator's best class of a crop has a probability of {found.best:.4f} on average, of "
        f"{num_classes:,} classes ({human_count(found.images, 'image')}). Check weights, mean, std, size, and whether these "
        "are logits (--scores)"
    )


def _show_agreement(summary: Summary) -> None:
    found = summary.agreement
    if found is not None:
        images = human_count(found.images, "image")
        click.echo(
            f"The images' own labels: {found.top1:.1%} are the best class, {found.top5:.1%} among the best five ({images})"
        )
        if doubt_words(found):
            click.echo(f"  {doubt_words(found)}")


def _show_failures(summary: Summary, console: Console) -> None:
    if not summary.counts.failed:
        return
    warn(console, f"{human_count(summary.counts.failed, 'image')} failed:")
    for image_id, reason in summary.failures[:_SHOWN_FAILURES]:
        tell(console, f"  {image_id}: {reason}")
    more = summary.counts.failed - _SHOWN_FAILURES
    if more > 0:
        tell(console, f"  and {more} more: labelstore info {shlex.quote(without_credentials(summary.store))} --json")


def _as_dict(summary: Summary) -> dict[str, Any]:
    counts = summary.counts
    return {
        "store": without_credentials(summary.store),
        "images": counts.rows,
        "done": counts.done,
        "failed": counts.failed,
        "pending": counts.pending,
        "new": summary.new_rows,
        "seconds": round(summary.seconds, 3),
        "images_per_second": round(summary.new_rows / summary.seconds, 3) if summary.new_rows else None,
        "bytes": counts.size_bytes,
        "bytes_a_map": counts.bytes_a_map,
        "encoding": summary.info.encoding,
        "distance": None if summary.info.distance is None else asdict(summary.info.distance),
        "imported": None if summary.info.imported is None else asdict(summary.info.imported),
        "agreement": agreement_as_dict(summary.agreement),
        "labels_left_out": summary.agreement.left_out if summary.agreement else None,
        "failures": [{"id": image_id, "reason": reason} for image_id, reason in summary.failures],
    }
