"""`labelstore export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from labelstore.cli.output import human_bytes, human_count
from labelstore.cli.progress import ProgressBar
from labelstore.cli.selecting import selection_options
from labelstore.cli.telling import people, say_json
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.records import AXES

if TYPE_CHECKING:
    from labelstore.pipelines.exchange.exporting import Exported

_json_option = click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")


@click.group("export")
def command() -> None:
    """Write a store's maps in other formats.

    \b
    Examples:
      labelstore export relabel labels.zarr relabel_maps --axes xy
      labelstore export arrays labels.zarr dogs.npz --match 'n02085*'
      labelstore export webdataset labels.zarr map-shards --maps-a-tar 5000
    """


@command.command()
@click.argument("store")
@click.argument("dest")
@click.option(
    "--axes",
    type=click.Choice(AXES),
    required=True,
    help="xy: columns of the image, then rows: what the reference's own loader reads right, which swaps the axes of crops; yx: "
    "rows, then columns, for loaders that do not.",
)
@selection_options
@_json_option
def relabel(store: str, dest: str, axes: str, selection: Selection, as_json: bool) -> None:
    """Write ReLabel's layout: a file an image, DEST/<folder>/<name>.pt, a tensor [2, K, H, W] in float32.

    \b
    Example:
      labelstore export relabel labels.zarr relabel_maps --axes xy
    """
    from labelstore.pipelines.exchange.export_pt import export_pt  # torch takes seconds: not for --help

    _export(lambda observer: export_pt(store, dest, axes, selection, observer), as_json)


@command.command()
@click.argument("store")
@click.argument("dest")
@selection_options
@_json_option
def arrays(store: str, dest: str, selection: Selection, as_json: bool) -> None:
    """Write plain arrays: DEST.npz, or a Zarr group DEST.zarr.

    classes uint16 and scores float32 [N, K, H, W], ids, targets and image_crc32; `labelstore import arrays` makes the same
    store of them.

    \b
    Example:
      labelstore export arrays labels.zarr labels.npz --ids some.txt
    """
    from labelstore.pipelines.exchange.export_arrays import export_arrays

    _export(lambda observer: export_arrays(store, dest, selection, observer), as_json)


@command.command()
@click.argument("store")
@click.argument("dest")
@click.option("--maps-a-tar", type=click.IntRange(1), default=10_000, show_default=True, metavar="N", help="Images a tar file.")
@selection_options
@_json_option
def webdataset(store: str, dest: str, maps_a_tar: int, selection: Selection, as_json: bool) -> None:
    """Write tar files as WebDataset reads them, DEST/maps-000000.tar and so on.

    A sample has its image's key, and classes.npy and scores.npy [K, H, W].

    \b
    Example:
      labelstore export webdataset labels.zarr map-shards
    """
    from labelstore.pipelines.exchange.export_tar import export_tar

    _export(lambda observer: export_tar(store, dest, maps_a_tar, selection, observer), as_json)


def _export(export: Callable[[Observer], Exported], as_json: bool) -> None:
    with ProgressBar(people(stderr=True), "exporting") as bar:
        done = export(bar)
    if as_json:
        say_json(asdict(done))
        return
    left = f", {done.left_out} left out" if done.left_out else ""
    click.echo(f"{human_count(done.images, 'image')} exported{left}: {done.dest} ({human_bytes(done.num_bytes)})")
