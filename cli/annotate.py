"""`labelstore annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelstore.cli.class_map_option import class_map_option
from labelstore.cli.encoding_options import encoding_options
from labelstore.cli.runs import RunChoice, run_options
from labelstore.cli.telling import tell
from labelstore.cli.where import Where, where_options
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.spec import PRECISIONS, SCORES
from labelstore.pipelines.observer import Observer
from labelstore.pixels import GREY16_RULES
from labelstore.schema import EXIF_RULES

if TYPE_CHECKING:
    from labelstore.pipelines.summary import Summary


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
    "--scores",
    type=click.Choice(SCORES),
    help="What the model's output is. Probabilities: their logarithm is taken.  [default: logits, or what a softmax or sigmoid "
    "at its end is given; other probabilities are refused]",
)
@click.option(
    "--image-size",
    type=click.IntRange(8, 8192),
    metavar="PX",
    help="Side of the annotator's square input.  [default: the annotator's own]",
)
@encoding_options(defaults.ENCODING, str(defaults.TOP_K))
@click.option(
    "--exif",
    type=click.Choice(EXIF_RULES),
    help="Whether photographs are turned upright first; must match what training sees.  "
    f"[default: {defaults.EXIF}; apply for Parquet]",
)
@click.option(
    "--grey16",
    type=click.Choice(GREY16_RULES),
    help="Greyscale of more than 8 bits. fail: no picture; scale: to 8 bits; clip: as ImageFolder, which makes most of it "
    f"white.  [default: {defaults.GREY16}]",
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
@click.option("--label-column", metavar="NAME", help="Column of labels; @none: leave them out.  [default: label]")
@class_map_option
@click.option(
    "--hidden", is_flag=True, help="Take hidden images of a folder or tar file too: names that begin with a dot, __MACOSX."
)
@click.option("--extend", is_flag=True, help="Add images that the store has no rows for; what is done is not touched.")
@click.option("--retry-failed", is_flag=True, help="Make the shards of images that failed once more.")
@run_options
def command(
    images: tuple[str, ...],
    store: str,
    where: Where,
    images_root: str | None,
    image_column: str | None,
    id_column: str | None,
    label_column: str | None,
    hidden: bool,
    class_map: str | None,
    extend: bool,
    retry_failed: bool,
    how: RunChoice,
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

    if not images:
        images = (str(copy_samples(Path(FOLDER))),)
        tell(how.console(), f"No images given: annotating the sample photographs, copied to {FOLDER}/")
    source = ImagesSpec(images, images_root, image_column, id_column, label_column, hidden)
    settings = Settings(**{**choices, "model": choices["model"] or None})

    def run(observer: Observer) -> Summary:
        resources = where.annotators_resources()
        choices_of_run = {"extend": extend, "retry_failed": retry_failed}
        return annotate(source, store, settings, resources, observer, **choices_of_run, class_map=class_map)

    how.show(run, "annotating", "annotated")
