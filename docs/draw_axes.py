"""Draws docs/axes.png: a crop, and where the reference's loader looks for its label.

python docs/draw_axes.py [OUT.png]     (pip install '.[demo]' matplotlib)
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from skimage import data, transform

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE = 15
ORANGE, BLUE = "#d55e00", "#0072b2"
CUP_AND_CAT = ListedColormap(["#c8a27a", "#8a8f98"])
BOX = (0.05, 0.45, 0.45, 0.95)
"""The crop (left, top, right, bottom)."""
SWAPPED = (BOX[1], BOX[0], BOX[3], BOX[2])


def outline(panel: Axes, box: tuple[float, float, float, float], size: tuple[float, float], colour: str, style: str) -> None:
    (x1, y1, x2, y2), (width, height) = box, size
    corner, sides = (x1 * width - 0.5, y1 * height - 0.5), ((x2 - x1) * width, (y2 - y1) * height)
    panel.add_patch(Rectangle(corner, *sides, fill=False, ec=colour, lw=3, ls=style))


def main(out: Path) -> None:
    halves = [transform.resize(photo, (400, 200)) for photo in (data.coffee()[:, 100:500], data.chelsea()[:, 30:330])]
    figure, (photo, right, turned) = plt.subplots(1, 3, figsize=(11, 3.9), constrained_layout=True)
    photo.imshow(np.concatenate(halves, axis=1), aspect="auto")
    outline(photo, BOX, (400, 400), ORANGE, "-")
    photo.set_title("a crop of the cup")
    cells = np.zeros((SIZE, SIZE))
    cells[:, SIZE // 2 + 1 :] = 1
    for panel, values, title, below in (
        (right, cells, "a map [row, column]: axes yx", "the crop's box reads the cup,\nthe reference's cup and cat"),
        (turned, cells.T, "a map [column, row]: axes xy", "the crop's box reads cup and cat,\nthe reference's the cup"),
    ):
        panel.imshow(values, cmap=CUP_AND_CAT)
        outline(panel, BOX, (SIZE, SIZE), ORANGE, "-")
        outline(panel, SWAPPED, (SIZE, SIZE), BLUE, "--")
        panel.text(0, 0, "cup", va="center")
        panel.text(SIZE - 1, SIZE - 1, "cat", va="center", ha="right")
        panel.set_title(title)
        panel.set_xlabel(below)
    for panel in (photo, right, turned):
        panel.set_xticks([])
        panel.set_yticks([])
    lines = [Rectangle((0, 0), 1, 1, fill=False, ec=colour, lw=3, ls=style) for colour, style in ((ORANGE, "-"), (BLUE, "--"))]
    meant = ["the crop's box (x1, y1, x2, y2)", "what the reference's loader reads: (top, left, bottom, right) taken for it"]
    figure.legend(lines, meant, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "axes.png")
