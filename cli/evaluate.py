"""`labelstore evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from labelstore.cli.class_map_option import class_map_option
from labelstore.cli.output import human_count
from labelstore.cli.telling import people, say_json, tell, warn
from labelstore.credentials import without_credentials
from labelstore.evaluation import (
    Evaluation,
    MultiLabels,
    evaluate_predictions,
    evaluate_store,
    read_multilabels,
    read_predictions,
    stored_multilabels,
)
from labelstore.evaluation.evaluate import THRESHOLDS
from labelstore.evaluation.predictions import Predictions
from labelstore.evaluation.scores import SCORES
from labelstore.reader import LabelMapReader

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("evaluate")
@click.argument("store", default="labels.zarr")
@click.option(
    "--labels",
    type=_FILE,
    metavar="FILE.json",
    help="The classes that images show: a list of lists in the order of file names, as ImageNet's real.json, or an object from "
    "image id to classes (numbers, ids or names).",
)
@click.option(
    "--predictions",
    type=_FILE,
    metavar="FILE.npz",
    help="What a classifier says: arrays ids [N], and probabilities or logits [N, C].",
)
@click.option(
    "--by",
    type=click.Choice(SCORES),
    default="image",
    show_default=True,
    help="The store's score of a class: its share of the whole image's soft label, or its highest probability at any location.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Scores from which a class counts as predicted; may be given again.  [default: {' '.join(map(str, THRESHOLDS))}]",
)
@click.option(
    "--present",
    type=click.FloatRange(0, 1, min_open=True),
    help="For --predictions without --labels: the store's classes of at least this score are those that an image shows.  "
    "[default: 0.3]",
)
@class_map_option
@click.option(
    "--scores",
    type=click.Choice(["logits", "probabilities"]),
    help="What the values of --predictions are.  [default: as their array is called]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    store: str,
    labels: Path | None,
    predictions: Path | None,
    by: str,
    thresholds: tuple[float, ...],
    present: float | None,
    class_map: str | None,
    scores: str | None,
    as_json: bool,
) -> None:
    """Hold a store's labels against multi-labels, or a classifier's predictions against either.

    Says how often the best class is one that the image shows (ReaL accuracy), precision, recall and F1 of the classes above
    thresholds, and how often images' own labels (their folders) agree.

    \b
    Examples:
      labelstore evaluate val.zarr --labels real.json
      labelstore evaluate val.zarr --labels real.json --by location --threshold 0.2 --json
      labelstore evaluate val.zarr --predictions resnet50.npz
      labelstore evaluate val.zarr --predictions resnet50.npz --labels real.json
    """
    if labels is None and predictions is None:
        raise click.UsageError("nothing to hold the store against: give --labels FILE.json, --predictions FILE.npz, or both")
    if scores is not None and predictions is None:
        raise click.UsageError("--scores is for --predictions")
    if present is not None and (labels is not None or predictions is None):
        raise click.UsageError("--present is for --predictions without --labels")
    reader = LabelMapReader(store)
    truth = stored_multilabels(reader, present or 0.3, by) if labels is None else read_multilabels(labels, reader)
    found: dict[str, Evaluation] = {}
    levels = thresholds or THRESHOLDS
    if labels is not None:
        found["store"] = evaluate_store(reader, truth, levels, by, class_map)
    unknown = 0
    if predictions is not None:
        given = _read(predictions, reader, scores)
        found["predictions"] = evaluate_predictions(reader, given, truth, levels, class_map)
        unknown = given.unknown
    if as_json:
        say_json(_as_json(without_credentials(store), truth, found, unknown))
        return
    console = people()
    for name, evaluation in found.items():
        _show(console, f"{name}, against {labels or f'the classes that {store} shows'}", evaluation)
    _show_unused(truth, unknown)


def _read(predictions: Path, reader: LabelMapReader, scores: str | None) -> Predictions:
    given = read_predictions(predictions, reader, scores)
    if given.unclear:
        how = "if they are probabilities, say --scores probabilities, else --scores logits"
        warn(people(stderr=True), f"{predictions}: all logits lie in 0..1; {how}")
    return given


def _show(console: Console, title: str, found: Evaluation) -> None:
    tell(console, f"{title}:")
    multi, distance = found.multi, found.distance
    shown = f"{human_count(multi.images, 'image')}, {multi.positives / multi.images:.2f} classes each"
    click.echo(f"  best class is one that the image shows  {multi.top1:.1%}  ({shown})")
    if found.own_top1 is not None:
        click.echo(f"  best class is the image's own label     {found.own_top1:.1%}")
    if found.own_present is not None:
        click.echo(f"  own label is one that the image shows   {found.own_present:.1%}")
    if distance is not None:
        how = f"same best class {distance.same_best:.1%}, L1 {distance.l1:.3f}, KL {distance.kl:.3f}"
        click.echo(f"  to the store's labels of whole images   {how}")
    if found.left_out:
        click.echo(f"  left out, without a score               {human_count(found.left_out, 'image')}")
    table = Table(box=None, pad_edge=False)
    for heading in ("  threshold", "precision", "recall", "F1", "classes an image"):
        table.add_column(heading, justify="right")
    for at in multi.thresholds:
        precision = "-" if at.precision is None else f"{at.precision:.3f}"
        best = "*" if at == multi.best else " "
        table.add_row(
            f"{at.threshold:g}", precision, f"{at.recall:.3f}", f"{at.f1:.3f}{best}", f"{at.predicted / multi.images:.2f}"
        )
    console.print(table)


def _show_unused(truth: MultiLabels, unknown: int) -> None:
    for count, what in (
        (truth.empty, "of which no class is said"),
        (truth.unknown, "with labels that are not in the store"),
        (unknown, "with predictions that are not in the store"),
    ):
        if count:
            click.echo(f"Not used: {human_count(count, 'image')} {what}")


def _as_json(store: str, truth: MultiLabels, found: dict[str, Evaluation], unknown: int) -> dict[str, Any]:
    unused = {"empty": truth.empty, "labels_unknown": truth.unknown, "predictions_unknown": unknown}
    return {"store": store, "unused": unused, **{name: asdict(evaluation) for name, evaluation in found.items()}}
