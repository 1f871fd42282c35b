"""Colours for classes, alike in the terminal, in pictures and in the viewer.

A palette that colour-blind readers can tell apart, and text colours on it.

The first seven entries are Okabe and Ito's (Color Universal Design, 2008) without their black, which vanishes on a dark
terminal; the eighth is the wine red of Paul Tol's *muted* scheme. Letters go with the colours, so that nothing depends
on colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RGB = tuple[int, int, int]

BLACK: RGB = (0, 0, 0)
WHITE: RGB = (255, 255, 255)
# Neighbours in this order differ most: an image seldom has more than three or four classes of any size.
PALETTE: tuple[RGB, ...] = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (136, 34, 85),  # wine
    (86, 180, 233),  # sky blue
    (213, 94, 0),  # vermilion
)
_LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Swatch:
    """What marks a class: a letter, and the colour of its background."""

    letter: str
    colour: RGB

    @property
    def text(self) -> RGB:
        """Black or white, whichever is easier to read on the colour."""
        return text_on(self.colour)


# Light: a middle grey is what reddish purple or green turns into for a deuteranope.
OTHER = Swatch("·", (195, 195, 195))


def assign(classes: Sequence[int]) -> dict[int, Swatch]:
    """Give letters and colours to the classes of one image.

    A class has its own place in the palette, so that it looks the same in every image; where a class with a larger share has
    that colour already, it takes the next one that is free.

    Parameters
    ----------
    classes
        Class numbers, each once, the one with the largest share first.

    Returns
    -------
    dict
        The first ``len(PALETTE)`` classes' swatches, A onwards; every class that is not in it is `OTHER`.
    """
    free = list(range(len(PALETTE)))
    found = {}
    for letter, chosen in zip(_LETTERS, classes, strict=False):
        place = min(free, key=lambda place: (place - chosen) % len(PALETTE))
        free.remove(place)
        found[chosen] = Swatch(letter, PALETTE[place])
    return found


def css(colour: RGB) -> str:
    """Write a colour as CSS does: ``#0072b2``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def text_on(colour: RGB) -> RGB:
    """Black or white, whichever has the higher contrast with `colour`."""
    return BLACK if contrast(BLACK, colour) >= contrast(WHITE, colour) else WHITE


def contrast(one: RGB, other: RGB) -> float:
    """Contrast ratio of two sRGB colours, 1 to 21 (WCAG 2.1, 1.4.3; 4.5 is readable text)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: RGB) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
