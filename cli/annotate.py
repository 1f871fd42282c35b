"""`labelstore annotate`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from labelstore.cli.output import human_bytes, human_count, human_seconds
from labelstore.cli.telling import tell, warn
from labelstore.cli.watching import watched
from labelstore.cli.where import Where, where_options
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.spec import PRECISIONS
from labelstore.schema import BASELINES, EXIF_RULES

if TYPE_CHECKING:
    from labelstore.pipelines.summary import Summary

_SHOWN_FAILURES = 10


def _triple(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float, float] | None:
    """Parse three numbers with commas between."""
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected three numbers with commas between, got {value!r}") from error
    return red, green, blue


@click.command("annotate")
@click.argument("images", nargs=-1)
@click.option("--store", default="labels.zarr", show_default=True, help="Where the store is, or is to be.")
@where_options
@click.option(
    "--model",
    multiple=True,
    metavar="NAME",
    help="The annotator: timm:NAME, torchvision:NAME, package.module:factory, a file of torch.export (.pt2) or TorchScript "
    "(.pt), or the default, which needs no download. Several: an ensemble, logits averaged on the first one's grid.  "
    f"[default: {defaults.MODEL}]",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE",
    help="Weights instead of the pretrained ones: .safetensors, or a state dict (.pth). One for each --model.",
)
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Names of the annotator's classes, a line each (or id, tab, name), or JSON; for models that do not know them.",
)
@click.option("--flip/--no-flip", default=None, help="Average with the mirrored image's logits: twice the work.  [default: no]")
@click.option(
    "--mean", callback=_triple, metavar="R,G,B", help="What the model's input is normalised with, of pixels in 0 to 1."
)
@click.option("--std", callback=_triple, metavar="R,G,B", help="Likewise.  [default: the model's own]")
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]),
    help="How images are resized.  [default: the model's own]",
)
@click.option(
    "--image-size",
    type=click.IntRange(8, 8192),
    metavar="PX",
    help="Side of the annotator's square input.  [default: the annotator's own]",
)
@click.option(
    "--encoding",
    type=click.Choice(list(defaults.BASELINES)),
    help="How maps are kept: topk, the best classes of every location as in the paper; spectral, the image's classes as smooth "
    f"maps.  [default: {defaults.ENCODING}]",
)
@click.option(
    "--classes-per-image",
    type=click.IntRange(1, 65535),
    metavar="M",
    help=f"spectral: classes named for an image.  [default: {defaults.CLASSES_PER_IMAGE}]",
)
@click.option(
    "--patterns",
    type=click.IntRange(0, 255),
    metavar="R",
    help=f"spectral: patterns that the classes' maps are mixed of.  [default: {defaults.PATTERNS}]",
)
@click.option(
    "--frequencies",
    type=click.IntRange(1, 64),
    metavar="k",
    help=f"spectral: a pattern's cosines, k down and k across.  [default: {defaults.FREQUENCIES}]",
)
@click.option(
    "--tail-bits",
    type=click.IntRange(0, 2),
    metavar="b",
    help="spectral: bits for each class that is not named.  "
    f"[default: {defaults.TAIL_BITS}; 0 above {defaults.MOST_TAIL_CLASSES:,} classes]",
)
@click.option(
    "--top-k",
    type=click.IntRange(1, 65535),
    metavar="K",
    help=f"Classes at every location: kept with topk, rebuilt when a spectral map is read.  [default: {defaults.TOP_K}]",
)
@click.option(
    "--baseline",
    type=click.Choice(BASELINES),
    help="What classes that are not kept count as: their mean logit; the one that keeps their mass (spectral); or 0, as in the "
    "paper.  [default: absent_mean for topk, absent_mass for spectral]",
)
@click.option(
    "--exif",
    type=click.Choice(EXIF_RULES),
    help="Whether photographs are turned upright first; must match what training sees.  "
    f"[default: {defaults.EXIF}; apply for Parquet]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1, 65536),
    metavar="S",
    help="Images a shard: the unit of work, and what an interruption can cost.  [default: by the number of images]",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="bfloat16: mixed precision, the head in float32.  [default: bfloat16 on a GPU that has it]",
)
@click.option(
    "--decoder",
    type=click.Choice(defaults.DECODERS),
    help="What decodes JPEG files; nvjpeg: the GPU, for pixels a little different.  [default: pillow]",
)
@click.option(
    "--images-root", metavar="DIR", help="What relative paths in a list are relative to.  [default: the list's folder]"
)
@click.option(
    "--image-column", metavar="NAME", help="Column of images in Parquet, of paths in CSV.  [default: image; path, ...]"
)
@click.option("--id-column", metavar="NAME", help="Column of image ids; @row: file and row.  [default: the images' paths]")
@click.option("--label-column", metavar="NAME", help="Column of labels.  [default: label]")
@click.option("--extend", is_flag=True, help="Add images that the store has no rows for; what is done is not touched.")
@click.option("--retry-failed", is_flag=True, help="Make the shards of images that failed once more.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any image failed.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: instead of the progress bar a line of JSON to stderr for everything that happens.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve the run's counts to Prometheus, at http://127.0.0.1:PORT/metrics.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    images: tuple[str, ...],
    store: str,
    where: Where,
    images_root: str | None,
    image_column: str | None,
    id_column: str | None,
    label_column: str | None,
    extend: bool,
    retry_failed: bool,
    strict: bool,
    log_format: str,
    metrics_port: int | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Make the label maps of all images of a source.

    IMAGES: a folder, searched recursively; a list of paths (.txt, .csv); tar files, as WebDataset writes them; or Parquet files
    with images inside. All of them may be URLs (s3://, gs://, https://). An image's id is its path below the folder, or in the
    list or tar file. Without IMAGES, the sample photographs that scikit-image and scikit-learn ship are copied to a folder and
    annotated. Run it again to go on after an interruption: what is committed is not made twice.

    \b
    Examples:
      labelstore annotate
      labelstore annotate imagenet/train --store imagenet.zarr --model timm:tf_efficientnet_l2.ns_jft_in1k_475
      labelstore annotate 'shards/train-{0000..0146}.tar' --model torchvision:resnet50 --flip
      labelstore annotate s3://bucket/pets/*.parquet --model resnet50 --weights pets.safetensors --classes pets.txt
      labelstore annotate photos --workers 4 --top-k 10 --json
      labelstore annotate more-photos --extend
      labelstore annotate /data/photos --store s3://bucket/labels.zarr --scheduler tcp://10.0.0.1:8786
    """
    from labelstore.pipelines.annotate import annotate  # torch and Dask take seconds: not for --help
    from labelstore.pipelines.samples import FOLDER, copy_samples
    from labelstore.pipelines.settings import Settings
    from labelstore.pipelines.sources import ImagesSpec

    console = Console(stderr=True, quiet=log_format == "json")
    if not images:
        images = (str(copy_samples(Path(FOLDER))),)
        tell(console, f"No images given: annotating the sample photographs, copied to {FOLDER}/")
    source = ImagesSpec(images, images_root, image_column, id_column, label_column)
    settings = Settings(**{**choices, "model": choices["model"] or None})
    with watched(console, log_format, metrics_port) as (observer, log):
        summary = annotate(
            source, store, settings, where.annotators_resources(), observer, extend=extend, retry_failed=retry_failed
        )
        if log is not None:
            log.finished(_as_json(summary))
    click.echo(json.dumps(_as_json(summary), indent=2)) if as_json else _show(summary, console)
    if summary.counts.failed and (strict or not summary.counts.done):
        raise click.ClickException(f"{summary.counts.failed} of {summary.counts.rows} images failed")


def _show(summary: Summary, console: Console) -> None:
    counts = summary.counts
    if not summary.new_rows and not counts.pending:
        tell(console, f"Nothing to do: all {counts.rows} images are in {summary.store}.")
    _show_failures(summary, console)
    rate = f", {summary.new_rows / summary.seconds:.1f} images/s" if summary.new_rows else ""
    size = f", {counts.bytes_a_map:,.0f} bytes a map" if counts.bytes_a_map else ""
    click.echo(f"{counts.done} of {counts.rows} images annotated, {counts.failed} failed")
    if summary.new_rows:
        click.echo(f"This run: {human_count(summary.new_rows, 'image')} in {human_seconds(summary.seconds)}{rate}")
    _show_distance(summary)
    _show_agreement(summary)
    click.echo(f"Store: {summary.store} ({human_bytes(counts.size_bytes)}{size})")
    if summary.example_id is not None:
        store = "" if summary.store == "labels.zarr" else f" --store {shlex.quote(summary.store)}"
        click.echo(f"Next:  labelstore inspect {shlex.quote(summary.example_id)}{store}")


def _show_distance(summary: Summary) -> None:
    found = summary.info.distance
    if found is not None and summary.new_rows:
        images = human_count(found.images, "image")
        click.echo(
            f"Distance to the annotator's own labels: L1 {found.l1:.3f}, KL {found.kl:.3f}, same best class for "
            f"{found.agreement:.0%} of crops ({images})"
        )


def _show_agreement(summary: Summary) -> None:
    found = summary.agreement
    if found is not None:
        images = human_count(found.images, "image")
        click.echo(
            f"The images' own labels: {found.top1:.1%} are the best class, {found.top5:.1%} among the best five ({images})"
        )


def _show_failures(summary: Summary, console: Console) -> None:
    if not summary.counts.failed:
        return
    warn(console, f"{human_count(summary.counts.failed, 'image')} failed:")
    for image_id, reason in summary.failures[:_SHOWN_FAILURES]:
        tell(console, f"  {image_id}: {reason}")
    more = summary.counts.failed - _SHOWN_FAILURES
    if more > 0:
        tell(console, f"  and {more} more: labelstore info {shlex.quote(summary.store)} --json")


def _as_json(summary: Summary) -> dict[str, Any]:
    counts = summary.counts
    return {
        "store": summary.store,
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
        "agreement": None if summary.agreement is None else asdict(summary.agreement),
        "failures": [{"id": image_id, "reason": reason} for image_id, reason in summary.failures],
    }
