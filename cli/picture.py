"""A label map over its photograph as one picture: for a slide, a report, or to see what an annotator saw."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from labelstore.cli.colours import BLACK, OTHER, RGB, WHITE, Swatch
from labelstore.cli.mapview import Box, MapView, class_name, legend, percent, top_classes
from labelstore.errors import OptionError

_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),  # thin coloured lines suffer from subsampled colour
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 92}),
}
# Pixels. A wide photograph makes a page of 2 * 900 + gap + 2 margins = 1920, as wide as a slide.
_MARGIN, _GAP = 42, 36
_WIDE_PANEL, _TALL_PANEL, _SIDE = (900, 720), (632, 860), 500
_MIN_COLUMN = 380  # a photograph narrower than this still leaves room for its caption
_TITLE, _HEADING, _BODY, _SMALL = 34, 24, 22, 19
_ROW, _BAR_ROW, _BADGE = 38, 50, 38
_MAX_BARS = 20
_INK: RGB = (32, 33, 36)
_FAINT: RGB = (110, 113, 118)
_TRACK: RGB = (232, 234, 237)
# The embedded font has no accents; what Unicode cannot take apart is spelled out.
_SPELLED = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ł": "l", "Ł": "L", "đ": "d", "ı": "i"}
    | {"–": "-", "—": "-", "−": "-", "×": "x", "Đ": "D", "þ": "th", "ð": "d"}
)


def save_picture(
    path: str | Path,
    photo: Image.Image,
    view: MapView,
    whole: NDArray[np.float32],
    box: Box | None = None,
    boxed: NDArray[np.float32] | None = None,
    *,
    title: str,
    class_names: Sequence[str] | None = None,
    top: int = 5,
) -> None:
    """Draw a label map over its photograph and save it.

    Parameters
    ----------
    path
        Where to; its extension is the format: .png, .jpg, .jpeg or .webp.
    photo
        The RGB photograph, of any size; the map covers the whole of it.
    view
        The label map.
    whole, boxed
        float32 ``[C]``: the soft labels of the whole image and of `box`.
    box
        ``(x1, y1, x2, y2)``, fractions of the photograph's width and height, x to the right, y down; drawn alike
        when mirrored (x1 > x2).
    title
        Printed above: the image id.
    class_names
        Names by class number; without them classes read ``class 281``.
    top
        Number of bars a soft label; at most 20 are drawn.

    Raises
    ------
    OptionError
        The extension is none of those, or nothing can be written there.
    """
    path = Path(path)
    if path.suffix.lower() not in _OPTIONS:
        raise OptionError(f"expected a picture ending in {', '.join(_OPTIONS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise OptionError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    labels = [("Soft label of the whole image", whole)]
    if boxed is not None:
        labels.append(("Soft label of the box", boxed))
    picture = _compose(photo, _Scene(view, box, tuple(labels), title, class_names, min(top, _MAX_BARS)))
    image_format, options = _OPTIONS[path.suffix.lower()]
    try:
        picture.save(path, format=image_format, **options)
    except OSError as error:
        raise OptionError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Scene:
    """What is to be drawn besides the photograph."""

    view: MapView
    box: Box | None
    labels: tuple[tuple[str, NDArray[np.float32]], ...]
    title: str
    class_names: Sequence[str] | None
    top: int


def _compose(photo: Image.Image, scene: _Scene) -> Image.Image:
    """Lay out the page: the legend and the bars go below wide photographs, beside tall ones."""
    wide = photo.width >= 0.9 * photo.height
    photo = _fitted(photo, _WIDE_PANEL if wide else _TALL_PANEL)
    column = max(photo.width, _MIN_COLUMN)
    width = 2 * _MARGIN + 2 * column + _GAP + (0 if wide else _GAP + _SIDE)
    # Taller than ever needed, cut at the end: nothing has to be measured twice.
    page = Image.new("RGB", (width, 1800 + len(scene.labels) * scene.top * _BAR_ROW), WHITE)
    _text(page, (_MARGIN, _MARGIN + 24), scene.title, _TITLE, width - 2 * _MARGIN)
    top = _MARGIN + 84
    _panels(page, top, column, photo, scene)
    sections = 1 + len(scene.labels)
    if wide:
        inner = (width - 2 * _MARGIN - (sections - 1) * _GAP) // sections
        starts = [(_MARGIN + i * (inner + _GAP), top + photo.height + 52) for i in range(sections)]
    else:
        inner, starts = _SIDE, [(width - _MARGIN - _SIDE, top + 18)]
    x, y = starts[0]
    bottoms = [top + photo.height, _legend(page, (x, y), inner, scene)]
    for i, (heading, soft) in enumerate(scene.labels, start=1):
        x, y = starts[i] if wide else (x, bottoms[-1] + 46)
        bottoms.append(_bars(page, (x, y), inner, heading, soft, scene))
    return page.crop((0, 0, width, max(bottoms) + _MARGIN))


def _fitted(photo: Image.Image, room: tuple[int, int]) -> Image.Image:
    scale = min(room[0] / photo.width, room[1] / photo.height)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    # A handful of pixels blown up looks smeared when smoothed: show it for what it is.
    method = Image.Resampling.NEAREST if scale > 8 else Image.Resampling.LANCZOS
    return photo.convert("RGB").resize(size, method, reducing_gap=3.0)


def _panels(page: Image.Image, top: int, column: int, photo: Image.Image, scene: _Scene) -> None:
    mapped = f"Label map, {scene.view.height} x {scene.view.width} (stronger colour: surer)"
    panels = {"Photograph": _marked(photo, scene.box), mapped: overlay(photo, scene.view, scene.box)}
    for i, (caption, panel) in enumerate(panels.items()):
        x = _MARGIN + i * (column + _GAP)
        _text(page, (x, top - 12), caption, _SMALL, column, _FAINT)
        page.paste(panel, (x, top))


def overlay(photo: Image.Image, view: MapView, box: Box | None = None) -> Image.Image:
    """Lay the map's colours over the whole RGB photograph: the surer a location, the stronger its colour.

    Row 0 of the map is the top of the photograph, column 0 its left edge. Classes carry their letter on their largest
    patch, where that is big enough.
    """
    swatches = view.swatches()
    rows = np.arange(photo.height) * view.height // photo.height
    columns = np.arange(photo.width) * view.width // photo.width
    best = view.best[rows[:, None], columns[None, :]]
    colours = np.full((*best.shape, 3), OTHER.colour, np.float32)
    for number, swatch in swatches.items():
        colours[best == number] = swatch.colour
    # The photograph loses most of its own colour, or green grass would read as a green class.
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]
    base = 0.3 * np.asarray(photo, np.float32) + 0.7 * grey
    opacity = view.opacity[rows[:, None], columns[None, :]][..., None].astype(np.float32)
    mixed = base + opacity * (colours - base)
    cell = min(photo.width / view.width, photo.height / view.height)
    mixed[_borders(best, min(2, int(cell // 8)))] = WHITE
    image = _marked(Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8)), box)
    for number, swatch in swatches.items():
        _badge(image, view.best == number, swatch)
    return image


def _borders(best: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Mark the `width` pixels after each place where one class ends and another begins."""
    edge = np.zeros(best.shape, bool)
    for i in range(1, 1 + width):
        edge[:, i:] |= best[:, i:] != best[:, :-i]
        edge[i:, :] |= best[i:, :] != best[:-i, :]
    return edge


def _badge(image: Image.Image, cells: NDArray[np.bool_], swatch: Swatch) -> None:
    """Put the class's letter on its largest patch, where that is big enough to carry it."""
    patch = _largest_patch(cells)
    cell = np.array([image.height / cells.shape[0], image.width / cells.shape[1]])
    if len(patch) * cell.prod() < 2 * _BADGE**2 or min(image.size) < 2 * _BADGE:
        return
    # The location nearest to the patch's centre of mass: that centre itself may lie outside a bent patch.
    centre = patch[np.argmin((((patch - patch.mean(axis=0)) * cell) ** 2).sum(axis=1))]
    corner = np.clip((centre + 0.5) * cell - _BADGE / 2, 2, np.array([image.height, image.width]) - _BADGE - 2)
    _chip(image, (round(corner[1]), round(corner[0])), _BADGE, _BADGE // 2, swatch, WHITE)


def _largest_patch(cells: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find the largest 4-connected patch of marked cells: int64 ``[n, 2]``, (row, column)."""
    left = {(int(y), int(x)) for y, x in np.argwhere(cells)}
    largest: list[tuple[int, int]] = []
    while left:
        patch = [left.pop()]
        for y, x in patch:  # grows while it is walked
            near = {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left
            left -= near
            patch.extend(near)
        largest = max(largest, patch, key=len)
    return np.array(sorted(largest), np.int64)


def _marked(panel: Image.Image, box: Box | None) -> Image.Image:
    """Draw the box's outline: white between dark lines, to be seen on any photograph."""
    if box is None:
        return panel
    panel = panel.copy()
    x1, x2 = (min(max(round(v * panel.width), 0), panel.width - 1) for v in sorted((box[0], box[2])))
    y1, y2 = (min(max(round(v * panel.height), 0), panel.height - 1) for v in sorted((box[1], box[3])))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((x1, y1, x2, y2), outline=BLACK, width=7)
    if min(x2 - x1, y2 - y1) >= 4:
        draw.rectangle((x1 + 2, y1 + 2, x2 - 2, y2 - 2), outline=WHITE, width=3)
    return panel


def _legend(page: Image.Image, at: tuple[int, int], width: int, scene: _Scene) -> int:
    x, y = at
    _text(page, (x, y), "Best class of each location", _HEADING, width - 90)
    _text_right(page, (x + width, y), "share", _SMALL, _FAINT)
    y += 42
    rows = legend(scene.view, scene.class_names)
    for i, row in enumerate(rows):
        line = y + i * _ROW
        _chip(page, (x, line - 22), 30, 6, row.swatch, row.swatch.colour)
        _text(page, (x + 44, line), row.name, _BODY, width - 44 - 100)
        _text_right(page, (x + width, line), percent(row.share), _BODY)
    return y + (len(rows) - 1) * _ROW + 8


def _bars(page: Image.Image, at: tuple[int, int], width: int, heading: str, soft: NDArray[np.float32], scene: _Scene) -> int:
    x, y = at
    draw, swatches = ImageDraw.Draw(page), scene.view.swatches()
    _text(page, (x, y), heading, _HEADING, width)
    for number, probability in top_classes(soft, scene.top):
        y += _BAR_ROW if y > at[1] else 42
        _text(page, (x, y), class_name(number, scene.class_names), _BODY, width - 100)
        _text_right(page, (x + width, y), percent(probability), _BODY)
        draw.rectangle((x, y + 10, x + width - 1, y + 19), fill=_TRACK)
        length = round(probability * width)
        if length:
            draw.rectangle((x, y + 10, x + length - 1, y + 19), fill=swatches.get(number, OTHER).colour)
    return y + 20


def _chip(image: Image.Image, at: tuple[int, int], size: int, radius: int, swatch: Swatch, outline: RGB) -> None:
    """Draw a class's letter on its colour; Pillow's shapes have hard edges, so at four times the size."""
    chip = Image.new("RGBA", (4 * size, 4 * size), (*outline, 0))
    draw = ImageDraw.Draw(chip)
    draw.rounded_rectangle((0, 0, 4 * size - 1, 4 * size - 1), 4 * radius, swatch.colour, outline, width=12)
    draw.text((2 * size, 2 * size), swatch.letter, swatch.text, _font(4 * round(0.63 * size)), anchor="mm")
    chip = chip.resize((size, size), Image.Resampling.LANCZOS)
    image.paste(chip, at, chip)


def _text(page: Image.Image, at: tuple[int, int], text: str, size: int, width: int, fill: RGB = _INK) -> None:
    """Write one line from the left, its baseline at `at`; what is wider than `width` ends in an ellipsis."""
    draw, text, font = ImageDraw.Draw(page), _plain(text), _font(size)
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + "…", font=font) > width:
            text = text[:-1]
        text = text.rstrip(" ,;") + "…"
    draw.text(at, text, fill, font, anchor="ls")


def _text_right(page: Image.Image, at: tuple[int, int], text: str, size: int, fill: RGB = _INK) -> None:
    ImageDraw.Draw(page).text(at, text, fill, _font(size), anchor="rs")


def _plain(text: str) -> str:
    """Spell text with the glyphs that the embedded font has: é as e, ß as ss, anything unknown as ?."""
    apart = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in apart if not unicodedata.combining(c))


@functools.cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)
