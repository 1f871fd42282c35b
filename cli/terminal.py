"""A label map and soft labels drawn in a terminal; readable without colour and in a pipe too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from labelstore.cli.colours import OTHER, RGB, Swatch
from labelstore.cli.mapview import Box, MapView, class_name, inside, legend, percent, top_classes

_MIN_SIDE = 36  # columns that a soft label needs beside another one
_MAX_SIDE = 80  # beyond this a bar is too far from its name
_PLAIN_BAR: RGB = (0, 114, 178)


def soft_label_table(
    title: str,
    soft: NDArray[np.float32],
    class_names: Sequence[str] | None = None,
    top: int = 5,
    swatches: Mapping[int, Swatch] | None = None,
) -> RenderableType:
    """Draw a soft label's highest classes: rank, name, probability and a bar (full width is 100 %).

    Parameters
    ----------
    title
        Printed above the table.
    soft
        float32 ``[C]``, sums to 1.
    class_names
        Names by class number; without them classes read ``class 281``.
    top
        Number of classes.
    swatches
        The map's letters and colours (`MapView.swatches`): bars take the colours that the map's cells have.
    """
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column(justify="right", no_wrap=True, min_width=7)
    table.add_column(no_wrap=True, ratio=2)
    for rank, (number, probability) in enumerate(top_classes(soft, top), start=1):
        colour = _PLAIN_BAR if swatches is None else swatches.get(number, OTHER).colour
        name = Text(class_name(number, class_names), no_wrap=True, overflow="ellipsis")
        table.add_row(str(rank), name, percent(probability), _Bar(probability, colour))
    return Constrain(Group(Text(title, style="bold", no_wrap=True, overflow="ellipsis"), table), _MAX_SIDE)


@dataclass(frozen=True)
class _Bar:
    """A bar without a track, which would be too dark on one background or too bright on another."""

    fraction: float
    colour: RGB

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        halves = round(2 * options.max_width * self.fraction)
        line = "#" * (halves // 2) if options.ascii_only else "━" * (halves // 2) + "╸" * (halves % 2)
        yield Text(line, style=Style(color=_rich(self.colour)), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(4, options.max_width), options.max_width)


@dataclass(frozen=True)
class SideBySide:
    """Renderables in columns of one width where the console is wide enough, else below one another."""

    parts: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < len(self.parts) * (_MIN_SIDE + 2):
            for i, part in enumerate(self.parts):
                yield from (["", part] if i else [part])
            return
        grid = Table.grid(expand=True, padding=(0, 2), pad_edge=False)
        for _ in self.parts:
            grid.add_column(ratio=1)
        grid.add_row(*self.parts)
        yield Constrain(grid, len(self.parts) * _MAX_SIDE)


def side_by_side(*parts: RenderableType) -> RenderableType:
    """Put soft labels next to one another: the whole image's and a box's."""
    return SideBySide(parts)


def map_cells(view: MapView, class_names: Sequence[str] | None = None, box: Box | None = None) -> RenderableType:
    """Draw a label map: a letter on its colour a location, row 0 at the top, and a legend below.

    A cell is two characters wide where the console allows it (which looks square), else one; a map that is wider than
    the console is thinned out, and says so. Locations within `box` stand between brackets (with narrow cells: as
    capitals, all others as small letters) and are bold and underlined.
    """
    return MapCells(view, class_names, box)


@dataclass(frozen=True)
class MapCells:
    """What `map_cells` returns: fits itself to the console's width when printed."""

    view: MapView
    class_names: Sequence[str] | None
    box: Box | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self.view
        roomy = 2 * view.width + 1 <= options.max_width  # + 1: a closing bracket at the right edge
        step = -(-view.width // options.max_width)
        yield from self._lines(roomy, step, options.ascii_only)
        yield ""
        yield self._legend(options.max_width, options.ascii_only)
        notes = []
        if self.box is not None:
            notes.append("[ ]: within the box" if roomy else "CAPITALS: within the box")
        if step > 1:
            notes.append(f"1 in {step} rows and columns of {view.height} x {view.width}")
        if notes:
            yield Text("; ".join(notes), style="dim")

    def _lines(self, roomy: bool, step: int, ascii_only: bool) -> Iterator[Text]:
        swatches, view = self.view.swatches(), self.view
        marked = np.zeros(view.best.shape, bool) if self.box is None else inside(view, self.box)
        # Of each step x step block the middle one is shown; a map lower than a block still has one row.
        for y in range(min(step // 2, view.height - 1), view.height, step):
            line = Text(no_wrap=True, overflow="crop", end="\n")
            for x in range(step // 2, view.width, step):
                swatch, within = swatches.get(int(view.best[y, x]), OTHER), bool(marked[y, x])
                before = bool(x and marked[y, x - 1])
                style = _style(swatch)
                if roomy:
                    line.append(_bracket(before, within), style)
                letter = _letter(swatch, ascii_only)
                if not roomy and self.box is not None:
                    letter = _cased(letter, within)
                line.append(letter, style + Style(bold=True, underline=True) if within else style)
            if roomy and marked[y, -1]:
                line.append("]")
            yield line

    def _legend(self, width: int, ascii_only: bool) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        # In a narrow console only the names give way: letters and shares stay whole.
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(width - 3 - 7 - 2, 1))
        table.add_column(no_wrap=True, justify="right", min_width=7)
        table.add_row("", Text("best class", style="dim"), Text("share", style="dim"))
        for row in legend(self.view, self.class_names):
            letter = Text(f" {_letter(row.swatch, ascii_only)} ", style=_style(row.swatch))
            table.add_row(letter, Text(row.name, no_wrap=True, overflow="ellipsis"), percent(row.share))
        return table


def _bracket(before: bool, within: bool) -> str:
    if before == within:
        return " "
    return "[" if within else "]"


def _letter(swatch: Swatch, ascii_only: bool) -> str:
    return "." if ascii_only and swatch == OTHER else swatch.letter


def _cased(letter: str, within: bool) -> str:
    """Tell inside from outside in one character; dots have no capitals."""
    if letter in "·.":
        return "o" if within else letter
    return letter if within else letter.lower()


def _style(swatch: Swatch) -> Style:
    return Style(color=_rich(swatch.text), bgcolor=_rich(swatch.colour))


def _rich(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
