"""Draws docs/pooling.jpg: a photograph, its label map, three random crops and their soft labels.

python docs/draw_pooling.py [OUT.jpg]     (pip install '.[demo]')
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from labelstore import LabelMapReader
from labelstore.cli.mapview import MapView, class_name, percent, top_classes
from labelstore.cli.picture import overlay
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.settings import Settings

BOXES = {"a": (0.10, 0.04, 0.38, 0.90), "b": (0.64, 0.05, 0.92, 0.86), "c": (0.30, 0.02, 0.72, 0.98)}
COLOURS = {"a": (214, 39, 40), "b": (31, 119, 180), "c": (225, 151, 0)}
PANEL, GAP, MARGIN, CROP = (784, 262), 32, 24, 256
PHOTO = (1200, 400)
INK, TRACK, SHOWN = (32, 33, 36), (232, 234, 237), 4


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        samples = copy_samples(Path(folder, "samples"))
        photo = side_by_side(samples / "coffee.png", samples / "chelsea.png")
        images = Path(folder, "images")
        images.mkdir()
        photo.save(images / "coffee-and-cat.png")
        engine = Resources(workers=0, device="cpu", threads=2, decode_threads=1, batch_size=1)
        annotate(images, f"{folder}/labels.zarr", Settings(model="efficientnet-lite0", image_size=384), engine, Observer())
        draw(photo, LabelMapReader(f"{folder}/labels.zarr")).save(out, quality=90)
    print(f"{out}: {out.stat().st_size:,} bytes")


def side_by_side(*files: Path) -> Image.Image:
    photos = [Image.open(file).convert("RGB").resize((PHOTO[0] // 2, PHOTO[1])) for file in files]
    page = Image.new("RGB", PHOTO)
    for place, photo in enumerate(photos):
        page.paste(photo, (place * PHOTO[0] // 2, 0))
    return page


def draw(photo: Image.Image, reader: LabelMapReader) -> Image.Image:
    one = reader[0]
    soft = reader.pool([0] * len(BOXES), list(BOXES.values()))
    page = Image.new("RGB", (2 * PANEL[0] + GAP + 2 * MARGIN, 2 * MARGIN + 2 * 40 + PANEL[1] + GAP + CROP + 8), "white")
    panels = (photo, overlay(photo, MapView.from_map(one.classes, one.scores, reader.num_classes)))
    titles = ("The photograph, and three random crops", "Its label map, made once: the best class of each location")
    for place, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = MARGIN + place * (PANEL[0] + GAP)
        write(page, (left, MARGIN), title, 24)
        framed = panel.convert("RGB").resize(PANEL, Image.Resampling.LANCZOS)
        for name, box in BOXES.items():
            frame(framed, name, box)
        page.paste(framed, (left, MARGIN + 40))
    top = MARGIN + 40 + PANEL[1] + GAP
    write(page, (MARGIN, top), "What training sees of each crop: the pixels, and the soft label read out of the map", 24)
    width = (page.width - 2 * MARGIN + GAP) // len(BOXES)
    for place, (name, box) in enumerate(BOXES.items()):
        column(page, (MARGIN + place * width, top + 40), width - GAP, photo, name, box, soft[place], reader)
    return page


def frame(panel: Image.Image, name: str, box: tuple[float, ...]) -> None:
    pixels = tuple(round(value * side) for value, side in zip(box, PANEL * 2, strict=True))
    brush = ImageDraw.Draw(panel)
    brush.rectangle(pixels, outline="white", width=7)
    brush.rectangle(tuple(np.add(pixels, (2, 2, -2, -2)).tolist()), outline=COLOURS[name], width=4)
    brush.rectangle((pixels[0], pixels[1], pixels[0] + 34, pixels[1] + 34), fill=COLOURS[name])
    brush.text((pixels[0] + 11, pixels[1] + 3), name, "white", ImageFont.load_default(24))


def column(
    page: Image.Image,
    at: tuple[int, int],
    width: int,
    photo: Image.Image,
    name: str,
    box: tuple[float, ...],
    soft: NDArray[np.float32],
    reader: LabelMapReader,
) -> None:
    region = tuple(value * side for value, side in zip(box, photo.size * 2, strict=True))
    crop = photo.resize((CROP - 8, CROP - 8), Image.Resampling.BICUBIC, region)
    page.paste(Image.new("RGB", (CROP, CROP), COLOURS[name]), at)
    page.paste(crop, (at[0] + 4, at[1] + 4))
    left, brush = at[0] + CROP + 16, ImageDraw.Draw(page)
    room = width - CROP - 16
    for place, (number, share) in enumerate(top_classes(soft, SHOWN)):
        y = at[1] + place * CROP // SHOWN
        label = class_name(number, reader.class_names).partition(",")[0]
        write(page, (left, y), f"{label}  {percent(share)}", 20)
        brush.rounded_rectangle((left, y + 28, left + room, y + 40), 4, TRACK)
        brush.rounded_rectangle((left, y + 28, left + max(round(room * share), 4), y + 40), 4, COLOURS[name])


def write(page: Image.Image, at: tuple[int, int], text: str, size: int) -> None:
    ImageDraw.Draw(page).text(at, text, INK, ImageFont.load_default(size))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pooling.jpg"))
