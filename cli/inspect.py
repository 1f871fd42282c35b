"""`labelstore inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import WHOLE_IMAGE, check_boxes
from labelstore.cli.mapview import Box, MapView, label_as_json
from labelstore.cli.telling import people, say_json
from labelstore.cli.terminal import map_cells, side_by_side, soft_label_table
from labelstore.errors import BoxError, ImageDecodeError, ImagesError
from labelstore.labelmap import LabelMap
from labelstore.reader import LabelMapReader


def parse_box(ctx: click.Context, param: click.Parameter, value: str | None) -> Box | None:
    """Parse and check ``x1,y1,x2,y2``: fractions of the image's width and height."""
    if value is None:
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in value.split(","))
        check_boxes([(x1, y1, x2, y2)], 1)
    except BoxError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    except ValueError as error:
        raise click.BadParameter(
            f"expected x1,y1,x2,y2: four fractions of the image's width and height, as in 0,0,0.5,1; got {value!r}", ctx, param
        ) from error
    return x1, y1, x2, y2


def _check_images(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a folder here that is not there."""
    if value is not None and "://" not in value and not any(sign in value for sign in "*{,") and not Path(value).exists():
        raise click.BadParameter(f"{value!r} does not exist", ctx, param)
    return value


@dataclass(frozen=True)
class Inspected:
    """All that is shown of one image."""

    image_id: str
    label_map: LabelMap
    whole: NDArray[np.float32]
    box: Box | None
    boxed: NDArray[np.float32] | None


@click.command("inspect")
@click.argument("image_id")
@click.option("--store", default="labels.zarr", show_default=True, help="The store.")
@click.option(
    "--box",
    metavar="x1,y1,x2,y2",
    callback=parse_box,
    help="A crop: fractions of the width and height, x to the right, y down.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown of a soft label.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw photograph and map.")
@click.option(
    "--images",
    metavar="ROOT",
    callback=_check_images,
    help="Where the photographs lie: what annotate takes.  [default: as the store recorded, on this machine]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the soft labels and the map as JSON.")
def command(image_id: str, store: str, box: Box | None, top: int, save: Path | None, images: str | None, as_json: bool) -> None:
    """Show an image's label map, and the soft labels of the whole image and of a box.

    \b
    Examples:
      labelstore inspect chelsea.png
      labelstore inspect n01440764/n01440764_10026.JPEG --store imagenet.zarr --box 0,0,0.5,1
      labelstore inspect chelsea.png --save chelsea-map.png
      labelstore inspect chelsea.png --json | jq .whole[0]
    """
    reader = LabelMapReader(store, compiled=False)
    found = inspect_image(reader, image_id, box)
    if as_json:
        say_json(_as_json(reader, found, top), ensure_ascii=False)
    else:
        _show(reader, found, top)
    if save is not None:
        _save(reader, found, top, save, images)
        click.echo(f"Saved {save}", err=as_json)


def inspect_image(reader: LabelMapReader, image_id: str, box: Box | None) -> Inspected:
    """Read an image's map and pool it over the whole image, and over a box if there is one."""
    boxes = [WHOLE_IMAGE] if box is None else [WHOLE_IMAGE, box]
    soft = reader.pool([image_id] * len(boxes), boxes)
    return Inspected(image_id, reader[image_id], soft[0], box, None if box is None else soft[1])


def _view(reader: LabelMapReader, found: Inspected) -> MapView:
    return MapView.from_map(found.label_map.classes, found.label_map.scores, reader.num_classes)


def _show(reader: LabelMapReader, found: Inspected, top: int) -> None:
    console, names = people(), reader.class_names
    height, width = reader.map_size
    click.echo(f"{found.image_id}: row {reader.ids.rows([found.image_id])[0]} of {len(reader)}, {height}x{width} locations")
    view = _view(reader, found)
    swatches = view.swatches()
    tables = [soft_label_table("whole image", found.whole, names, top, swatches)]
    if found.boxed is not None and found.box is not None:
        title = f"box {','.join(f'{edge:g}' for edge in found.box)}"
        tables.append(soft_label_table(title, found.boxed, names, top, swatches))
    console.print(side_by_side(*tables))
    console.print(map_cells(view, names, found.box))


def _as_json(reader: LabelMapReader, found: Inspected, top: int) -> dict[str, Any]:
    return {
        "image_id": found.image_id,
        "whole": label_as_json(found.whole, top, reader.info),
        **({} if found.boxed is None else {"box": found.box, "boxed": label_as_json(found.boxed, top, reader.info)}),
        "map": {
            "classes": found.label_map.classes.tolist(),
            "scores": [[[round(float(s), 4) for s in row] for row in rank] for rank in found.label_map.scores],
        },
    }


def _save(reader: LabelMapReader, found: Inspected, top: int, path: Path, images: str | None) -> None:
    from labelstore.cli.picture import save_picture  # Pillow and the image module only where a picture is drawn
    from labelstore.pipelines.images import decode_image
    from labelstore.pipelines.photographs import Photographs
    from labelstore.pixels import ReadRules

    try:
        data = Photographs(reader.info, images).root(reader.ids.row(found.image_id)).read(found.image_id)
        photo = decode_image(data, ReadRules.of(reader.info))
    except ImageDecodeError as error:
        raise ImagesError(f"{found.image_id}: {error}") from error
    save_picture(
        path,
        photo,
        _view(reader, found),
        found.whole,
        found.box,
        found.boxed,
        title=found.image_id,
        class_names=reader.class_names,
        top=top,
    )
