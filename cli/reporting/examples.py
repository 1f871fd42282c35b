"""Images with their maps over them, as small pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from labelstore.cli.mapview import LegendRow, MapView, shown_legend
from labelstore.cli.picture import overlay
from labelstore.errors import ImageDecodeError, ImagesError
from labelstore.pipelines.images import decode_image
from labelstore.pipelines.photographs import Photographs
from labelstore.pixels import ReadRules
from labelstore.reader import LabelMapReader

_SIDE = 240
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Example:
    """An image's photograph and its map over it, as addresses that hold them; without a photograph the map on grey."""

    image_id: str
    photo: str | None
    mapped: str
    legend: list[LegendRow]


def example_of(reader: LabelMapReader, photographs: Photographs, row: int) -> Example:
    """Return one image to be shown."""
    label_map, image_id = reader[row], reader.ids[row]
    view = MapView.from_map(label_map.classes, label_map.scores, reader.num_classes)
    try:
        photo = decode_image(photographs.root(row).read(image_id), ReadRules.of(reader.info))
        photo.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    except (ImagesError, ImageDecodeError):
        blank = Image.new("RGB", (_SIDE, max(_SIDE * view.height // view.width, 1)), _GREY)
        return Example(image_id, None, _jpeg(overlay(blank, view)), shown_legend(view, reader.class_names))
    return Example(image_id, _jpeg(photo), _jpeg(overlay(photo, view)), shown_legend(view, reader.class_names))


def _jpeg(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
