"""`/api/photo` and `/api/cells`: photographs, made small, and the cells of maps as pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from starlette.responses import Response

from labelstore.cli.colours import OTHER
from labelstore.cli.mapview import MapView
from labelstore.cli.web.endpoints import Call, Endpoint, tagged
from labelstore.cli.web.naming import ONE_ROW, one_row
from labelstore.cli.web.parameters import Parameter
from labelstore.cli.web.site import Site
from labelstore.pipelines.images import decode_image
from labelstore.pixels import ReadRules

SIDES = ("256", "1280")
JPEG, PNG = "image/jpeg", "image/png"


def _photo(call: Call) -> Response:
    site, row, side = call.site, one_row(call), int(call["side"])
    image_id = site.reader.ids[row]
    root = site.photographs.root(row)
    stamp = root.stamp(image_id) or f"{site.reader.image_crc32(row):08x}"
    rules = ReadRules.of(site.info)
    key = f"photo {side} {rules} {stamp} {row} {image_id}"
    return tagged(
        call,
        key,
        lambda: Response(site.pictures.get(key, lambda: _small(root.read(image_id), rules, side)), media_type=JPEG),
    )


def _small(data: bytes, rules: ReadRules, side: int) -> bytes:
    """Decode a photograph as annotate does, and encode it anew: nothing of the file itself goes out."""
    image = decode_image(data, rules)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _cells(call: Call) -> Response:
    site, row = call.site, one_row(call)
    key = f"cells {site.identity} {row} {site.reader.image_crc32(row)}"
    return tagged(call, key, lambda: Response(site.pictures.get(key, lambda: draw_cells(site, row)), media_type=PNG))


def draw_cells(site: Site, row: int) -> bytes:
    """Return a map as a picture of a pixel a location: the class's colour, the stronger the surer."""
    label_map = site.reader[row]
    view = MapView.from_map(label_map.classes, label_map.scores, site.info.num_classes)
    pixels = np.empty((view.height, view.width, 4), np.uint8)
    pixels[..., :3] = OTHER.colour
    for number, swatch in view.swatches().items():
        pixels[view.best == number, :3] = swatch.colour
    pixels[..., 3] = np.rint(255 * view.opacity)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = Endpoint(
    "/api/photo",
    "An image's photograph, no side longer than asked for.",
    _photo,
    (*ONE_ROW, Parameter("side", "string", "The longest side in pixels.", SIDES[0], choices=SIDES)),
    answer=JPEG,
    statuses=(304, 404, 409),
)
CELLS = Endpoint("/api/cells", "A map as a picture, a pixel a location.", _cells, ONE_ROW, answer=PNG, statuses=(304, 404, 409))
