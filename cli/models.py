"""`labelstore models`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from labelstore.cli.output import human_count
from labelstore.cli.telling import people, say_json, tell

if TYPE_CHECKING:
    from labelstore.pipelines.annotators.catalogue import MapFound, MapSizes
    from labelstore.pipelines.annotators.network import Listed

_HEADINGS = ("name", "input", "classes", "names", "weights", "map")
_NUMBERS = (1, 2)  # to the right
_NONE = "-"


@click.command("models")
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, with the reason where there is no map size.")
def command(pattern: str | None, as_json: bool) -> None:
    """List the annotators that --model takes by name: input size, classes, map size.

    PATTERN is a part of the name or a glob, in upper or lower case ('*': all,
    which takes minutes once). Map sizes are those at the annotator's own input
    size, read from the network itself without its weights, and kept; without
    PATTERN only those found before are shown.

    names -: nobody knows names of the classes. CLIP's are no classes at all but
    the numbers of an embedding.

    \b
    Examples:
      labelstore models
      labelstore models resnet50
      labelstore models 'convnext*in1k'
      labelstore models 'torchvision:*' --json | jq -r '.[] | select(.map_size) | .name'
    """
    console = people(stderr=True)
    with console.status("reading the lists of models"):
        from labelstore.pipelines.annotators.catalogue import MapSizes, list_annotators, matching  # torch takes seconds

        models, missing = list_annotators()
        chosen = matching(models, pattern) if pattern else models
        sizes = MapSizes()
    if pattern:
        _find_all(chosen, sizes, console)
    rows = [(model, sizes.known(model)) for model in chosen]
    if as_json:
        say_json([_as_json(model, found) for model, found in rows])
    else:
        for line in _aligned([_HEADINGS, *(_cells(model, found) for model, found in rows)]):
            click.echo(line)
    for note in missing:
        tell(console, f"Not listed: {note}")
    unknown = sum(found is None for _, found in rows)
    if unknown:
        tell(
            console, f"{human_count(unknown, 'map size')} not looked for yet: labelstore models PATTERN finds those that fit it"
        )


def _find_all(models: Sequence[Listed], sizes: MapSizes, console: Console) -> None:
    columns = (TextColumn("finding map sizes"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        try:
            for model in progress.track(models):
                sizes.find(model)
        finally:
            sizes.save()  # also what was found before an interruption


def _cells(model: Listed, found: MapFound | None) -> tuple[str, ...]:
    names = "known" if model.classes_named else _NONE
    return model.name, str(model.input_size), str(model.num_classes), names, model.weights, _map(found)


def _map(found: MapFound | None) -> str:
    if found is None:
        return _NONE
    if found.size is not None:
        return "{}x{}".format(*found.size)
    return "no per-location head" if found.refused else f"not known: {found.reason}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with columns below one another, never wrapped or cut: to be searched and copied from."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell:>{width}}" if i in _NUMBERS else f"{cell:{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _as_json(model: Listed, found: MapFound | None) -> dict[str, Any]:
    map_size = None if found is None else found.size
    reason = "not looked for" if found is None else found.reason
    return {**asdict(model), "map_size": map_size, "reason": reason}
