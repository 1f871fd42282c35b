"""Cut-out objects by class, from packages that ship some: handwritten digits (scikit-learn), photo stamps (Tux Paint).

Objects and backgrounds come in parts: what the teacher, the students, their validation and their test see is drawn from parts
of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PARTS = {"teacher": 0.4, "train": 0.3, "validation": 0.1, "test": 0.2}
"""Shares of the digits, and of the backgrounds' width. Stamps are single photographs: every part has all of them, turned, lit,
scaled and placed anew."""
STAMPS = Path("/usr/share/tuxpaint/stamps")
STAMP_FILES = (
    "animals/birds: crow hen owl penguin rooster",
    "animals/fish: butterflyfish clownfish",
    "animals/mammals: elephant giraffe",
    "food/fruit: apple_red banana lemon pineapple strawberry",
    "food/vegetables: broccoli eggplant",
    "plants/flowers: daffodil rose",
    "household: rubberduck",
    "sports: soccer",
)
_PHOTOS = (
    "skimage.data/astronaut.png",
    "skimage.data/brick.png",
    "skimage.data/chelsea.png",
    "skimage.data/coffee.png",
    "skimage.data/grass.png",
    "skimage.data/gravel.png",
    "skimage.data/motorcycle_left.png",
    "skimage.data/rocket.jpg",
    "sklearn.datasets.images/china.jpg",
    "sklearn.datasets.images/flower.jpg",
)


@dataclass(frozen=True)
class Objects:
    """What scenes of one part are made of.

    ``by_class`` are RGBA cut-outs ``[h, w, 4]``; ``tinted`` ones are grey and get a colour in every scene. ``photos`` are
    backgrounds; none: smooth random colours.
    """

    by_class: Mapping[str, tuple[NDArray[np.uint8], ...]]
    photos: tuple[NDArray[np.uint8], ...] = ()
    tinted: bool = False
    turned: float = 15.0
    """Degrees that objects are turned by at most."""
    mirrored: bool = False


@cache
def digits(part: str) -> Objects:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, as shapes without a colour."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    mine = np.random.default_rng(0).permutation(len(images))[_share(part, len(images))]
    inks = [_ink(image.reshape(8, 8)) for image in images[mine]]
    by_class = {str(digit): tuple(inks[at] for at in np.flatnonzero(targets[mine] == digit)) for digit in range(10)}
    return Objects(by_class, tinted=True)


@cache
def stamps(part: str, root: Path = STAMPS) -> Objects:
    """Twenty photographs of animals, fruit, flowers and things, cut out, before strips of other photographs.

    Of each of those, every part has a strip of its own.
    """
    by_class = {}
    for line in STAMP_FILES:
        folder, names = line.split(": ")
        for name in names.split():
            image = Image.open(root / folder / f"{name}.png").convert("RGBA")
            image = image.crop(image.getbbox())
            image.thumbnail((64, 64))
            by_class[name] = (np.asarray(image),)
    return Objects(by_class, tuple(_strip(place, part) for place in _PHOTOS), turned=30.0, mirrored=True)


def class_names(kind: str) -> tuple[str, ...]:
    """The classes of a kind of objects, as a folder of scenes has them."""
    if kind == "digits":
        return tuple(map(str, range(10)))
    return tuple(sorted(name for line in STAMP_FILES for name in line.split(": ")[1].split()))


def load_objects(kind: str, part: str, root: Path = STAMPS) -> Objects:
    """``digits`` or ``stamps`` of one part."""
    return digits(part) if kind == "digits" else stamps(part, root)


def _strip(place: str, part: str) -> NDArray[np.uint8]:
    package, name = place.split("/")
    with files(package).joinpath(name).open("rb") as file:
        photo = np.asarray(Image.open(file).convert("RGB"))
    return photo[:, _share(part, photo.shape[1])]


def _share(part: str, count: int) -> slice:
    names = list(PARTS)
    before = sum(PARTS[name] for name in names[: names.index(part)])
    return slice(round(before * count), round((before + PARTS[part]) * count))


def _ink(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A digit of values 0..16 as a white RGBA cut-out: what was ink is opaque."""
    alpha = (image * (255 / 16)).astype(np.uint8)
    return np.dstack([np.full((8, 8, 3), 255, np.uint8), alpha])
