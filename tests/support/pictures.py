"""Pictures of plain colours, to be told apart by the annotators of `toy_annotators`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def draw(first: str, second: str | None = None, size: tuple[int, int] = (60, 40), *, stacked: bool = False) -> Image.Image:
    """A picture of one colour, or of two: left and right, or top and bottom; ``size`` is (width, height)."""
    (width, height), image = size, Image.new("RGB", size, first)
    image.paste(second or first, (0, height // 2, width, height) if stacked else (width // 2, 0, width, height))
    return image


def paint(
    path: Path, first: str, second: str | None = None, size: tuple[int, int] = (60, 40), *, stacked: bool = False
) -> Path:
    """Save what `draw` draws."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(first, second, size, stacked=stacked).save(path)
    return path


def paint_many(folder: Path, count: int) -> Path:
    """A folder of so many pictures, of four colours in turn."""
    colours = ("red", "green", "blue", "yellow")
    for number in range(count):
        paint(folder / f"{number:04}.png", colours[number % len(colours)])
    return folder
