"""`labelstore import`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labelstore.cli.cluster_options import ClusterChoice, Option, add_options, with_cluster
from labelstore.cli.encoding_options import encoding_options
from labelstore.cli.runs import RunChoice, run_options
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.spec import SCORES
from labelstore.pipelines.observer import Observer
from labelstore.records import AXES
from labelstore.schema import EXIF_RULES

if TYPE_CHECKING:
    from labelstore.pipelines.exchange.axes import AxesCheck
    from labelstore.pipelines.resources import Resources
    from labelstore.pipelines.summary import Summary

A = TypeVar("A")
_CLASSES_HELP = "Names of the classes, a line each (or id, tab, name), or JSON."
_EXIF_HELP = "Whether photographs were turned upright before the maps were made; recorded."
_SHARD_SIZE = click.option(
    "--shard-size", type=click.IntRange(1, 65536), metavar="S", help="Images a shard.  [default: by the number of images]"
)
_SCORES = click.option(
    "--scores",
    type=click.Choice(SCORES),
    help="What the scores are. Probabilities: their logarithm is kept.  [default: logits; what looks like probabilities is "
    "refused]",
)
_SKIP_BAD = click.option("--skip-bad", is_flag=True, help="Mark the images of maps that cannot be kept as failed, and go on.")
_ABOUT: tuple[Option, ...] = (
    click.option(
        "--num-classes", type=click.IntRange(1, 65535), default=1000, show_default=True, metavar="C", help="Classes there are."
    ),
    click.option(
        "--classes",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help=_CLASSES_HELP,
    ),
    click.option("--annotator", default="not known", metavar="TEXT", help="What made the maps; recorded."),
    click.option(
        "--exif",
        type=click.Choice(EXIF_RULES),
        default=defaults.EXIF,
        show_default=True,
        help=_EXIF_HELP,
    ),
    _SCORES,
    _SHARD_SIZE,
    _SKIP_BAD,
)
_FILES: tuple[Option, ...] = (
    click.option(
        "--images",
        metavar="ROOT",
        help="Where the images are: their ids are their paths below it. (A list, tar or Parquet files: as for annotate.)",
    ),
    click.option(
        "--ext",
        "extension",
        default=".JPEG",
        show_default=True,
        metavar=".EXT",
        help="Without --images: an image's id is its file's name with this extension.",
    ),
)


def _importing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all imports of one file an image have."""
    return add_options(with_cluster(run_options(command)), (*_FILES, *_ABOUT))


def _importing_exports(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of imports whose files may say themselves what they are; those of it come as one ``said``."""

    @functools.wraps(command)
    def with_said(*arguments: Any, **given: Any) -> None:
        said = {name: given.pop(name) for name in ("num_classes", "classes", "annotator", "exif", "scores")}
        command(*arguments, said=said, **given)

    options = (
        click.option(
            "--num-classes", type=click.IntRange(1, 65535), metavar="C", help="Classes there are.  [default: as the files say]"
        ),
        click.option("--classes", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help=_CLASSES_HELP),
        click.option("--annotator", metavar="TEXT", help="What made the maps; recorded."),
        click.option("--exif", type=click.Choice(EXIF_RULES), help=_EXIF_HELP),
        _SCORES,
        _SHARD_SIZE,
        _SKIP_BAD,
    )
    return add_options(with_cluster(run_options(with_said)), options)


@click.group("import")
def command() -> None:
    """Make a store of label maps that others have made.

    \b
    Examples:
      labelstore import relabel relabel_maps relabel.zarr --check imagenet/train
      labelstore import tokenlabeling label_top5_train_nfnet tokens.zarr
      labelstore import arrays maps.npz labels.zarr --ids ids.txt --num-classes 100
      labelstore import webdataset map-shards labels.zarr
    """


@command.command()
@click.argument("folder")
@click.argument("store")
@click.option(
    "--axes",
    type=click.Choice(AXES),
    help="yx: the files' last two axes are the image's rows and columns; xy: columns and rows, and they are turned round.",
)
@click.option(
    "--check",
    metavar="IMAGES",
    help="Instead of --axes: annotate 64 of these images, and take the axes that agree; says how clear it is.",
)
@click.option(
    "--model", multiple=True, metavar="NAME", help=f"For --check: the annotator, as for annotate.  [default: {defaults.MODEL}]"
)
@_importing
def relabel(
    folder: str,
    store: str,
    axes: str | None,
    check: str | None,
    model: tuple[str, ...],
    cluster: ClusterChoice,
    how: RunChoice,
    **choices: Any,
) -> None:
    """Import ReLabel's layout: a file an image.

    FOLDER/<wnid>/<name>.pt each hold a tensor [2, K, H, W]: scores, and class numbers. Whether its last two axes are rows and
    columns, or columns and rows, cannot be told from square maps, so it must be said, or looked at (docs/formats.md).
    Interrupted, the same command goes on.

    \b
    Examples:
      labelstore import relabel relabel_maps relabel.zarr --check imagenet/train
      labelstore import relabel maps pets.zarr --axes yx --images pets/train --num-classes 37 --classes pets.txt
    """
    from labelstore.pipelines.exchange.pt_import import PtImport, import_pt  # torch takes seconds: not for --help

    if model and check is None:
        raise click.UsageError("--model: goes with --check")

    looking = None if check is None else _axes_check(check, model, choices["exif"])
    _import(import_pt, PtImport(folder, "relabel", axes, looking, **choices), store, cluster, how)


@command.command()
@click.argument("folder")
@click.argument("store")
@_importing
def tokenlabeling(folder: str, store: str, cluster: ClusterChoice, how: RunChoice, **choices: Any) -> None:
    """Import TokenLabeling's layout: a file an image, in float16.

    FOLDER/<wnid>/<name>.pt each hold a tensor [2, K, H, W]: scores, and class numbers (at most 2,048 of them: float16 does not
    tell more apart). Its generator writes rows first, then columns. Interrupted, the same command goes on.

    \b
    Example:
      labelstore import tokenlabeling label_top5_train_nfnet tokens.zarr --images imagenet/train
    """
    from labelstore.pipelines.exchange.pt_import import PtImport, import_pt

    _import(import_pt, PtImport(folder, "tokenlabeling", "yx", **choices), store, cluster, how)


@command.command()
@click.argument("file")
@click.argument("store")
@click.option("--ids", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Image ids, one a line.")
@encoding_options("as annotate for logits, topk for classes", f"{defaults.TOP_K} for logits, as they are for classes")
@_importing_exports
def arrays(
    file: str,
    store: str,
    ids: str | None,
    top_k: int | None,
    said: dict[str, Any],
    shard_size: int | None,
    skip_bad: bool,
    cluster: ClusterChoice,
    how: RunChoice,
    **encoding: Any,
) -> None:
    """Import plain arrays: FILE.npz, or a Zarr group.

    Either logits [N, C, H, W], dense; or classes and scores [N, K, H, W], the K best of every location, in any order. Rows are
    maps in the order of --ids. An array targets [N] are the images' own labels. Interrupted, the same command goes on.

    \b
    Examples:
      labelstore import arrays logits.zarr labels.zarr --ids ids.txt --encoding spectral
      labelstore import arrays top5.npz labels.zarr --ids ids.txt --num-classes 1000
    """
    from labelstore.pipelines.choice import EncodingChoice
    from labelstore.pipelines.exchange.array_import import ArrayImport, import_arrays
    from labelstore.pipelines.exchange.told import Said

    asked = ArrayImport(file, Said(**said), ids, EncodingChoice(**encoding), top_k, shard_size, skip_bad)
    _import(import_arrays, asked, store, cluster, how)


@command.command()
@click.argument("folder")
@click.argument("store")
@_importing_exports
def webdataset(
    folder: str,
    store: str,
    said: dict[str, Any],
    shard_size: int | None,
    skip_bad: bool,
    cluster: ClusterChoice,
    how: RunChoice,
) -> None:
    """Import tar files of maps, as `labelstore export webdataset` writes them.

    FOLDER holds *.tar, whose samples have classes.npy and scores.npy [K, H, W], and json with the image's id (and target,
    image_crc32). Interrupted, the same command goes on.

    \b
    Example:
      labelstore import webdataset map-shards labels.zarr
    """
    from labelstore.pipelines.exchange.tar_import import TarImport, import_tars
    from labelstore.pipelines.exchange.told import Said

    asked = TarImport(folder, Said(**said), shard_size, skip_bad)
    _import(import_tars, asked, store, cluster, how)


def _import(
    run: Callable[[A, str, Resources, Observer], Summary], asked: A, store: str, cluster: ClusterChoice, how: RunChoice
) -> None:
    """Import what was asked for, and say what it came to."""
    resources = cluster.resources_without_annotators()
    how.show(lambda observer: run(asked, store, resources, observer), "importing", "imported")


def _axes_check(images: str, model: tuple[str, ...], exif: str) -> AxesCheck:
    from labelstore.pipelines.exchange.axes import AxesCheck
    from labelstore.pipelines.settings import Settings

    return AxesCheck(images, Settings(model=model or None).ensemble_spec(), "auto", exif)
