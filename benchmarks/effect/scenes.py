"""Scenes: one to four objects before a background, with one label, as image files on disk.

As in ImageNet, the label of an image names one of the objects that it shows, the larger the likelier; what else is there is
kept for the test alone, in ``present.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from effect.objects import Objects

SIZE = 64
"""Of a scene of scale 1, in pixels a side."""
_SIDES = (0.25, 0.4)
"""Of objects, in sides of the scene."""
_TRIES = 50
_BLUR = 1 / 32
"""Of a side: by how much photographs behind objects are out of focus."""
PRESENT = "present.json"


@dataclass(frozen=True)
class Scene:
    """An image, the classes that it shows, and the one that is its label."""

    image: Image.Image
    present: tuple[str, ...]
    label: str


def make_scene(objects: Objects, counts: tuple[int, ...], rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Put so many objects (one of ``counts``) in different places before a background, ``size`` pixels a side."""
    scene = _background(objects, rng, size)
    classes, areas, taken = [], [], np.zeros((size, size), bool)
    for _ in range(rng.choice(counts)):
        name = str(rng.choice(list(objects.by_class)))
        cut = _vary(objects, name, rng, size)
        place = _free_place(cut.size, taken, rng)
        if place is None:
            continue
        scene.paste(cut, place, cut)
        classes.append(name)
        areas.append(cut.size[0] * cut.size[1])
    label = classes[rng.choice(len(classes), p=np.array(areas) / sum(areas))]
    return Scene(scene, tuple(sorted(set(classes))), label)


def write_scenes(root: Path, objects: Objects, count: int, counts: tuple[int, ...], seed: int, size: int = SIZE) -> Path:
    """Write scenes as ``root/LABEL/NUMBER.png``, and what each of them shows."""
    rng, present = np.random.default_rng(seed), {}
    for name in objects.by_class:
        (root / name).mkdir(parents=True)
    for number in range(count):
        scene = make_scene(objects, counts, rng, size)
        image_id = f"{scene.label}/{number:06}.png"
        scene.image.save(root / image_id, compress_level=1)
        present[image_id] = scene.present
    (root / PRESENT).write_text(json.dumps(present))
    return root


def read_present(root: Path) -> dict[str, list[str]]:
    """The classes that each image of a folder shows, by image id."""
    found: dict[str, list[str]] = json.loads((root / PRESENT).read_text())
    return found


def _background(objects: Objects, rng: np.random.Generator, size: int) -> Image.Image:
    if not objects.photos:
        rough = Image.fromarray(rng.integers(0, 120, (5, 5, 3), np.uint8))
        return rough.resize((size, size), Image.Resampling.BICUBIC)
    photo = objects.photos[rng.integers(len(objects.photos))]
    side = int(rng.uniform(0.6, 1.0) * min(*photo.shape[:2], 150))
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    image = Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size))
    return image.filter(ImageFilter.GaussianBlur(_BLUR * size))


def _vary(objects: Objects, name: str, rng: np.random.Generator, size: int) -> Image.Image:
    cuts = objects.by_class[name]
    pixels = cuts[rng.integers(len(cuts))]
    if objects.tinted:
        pixels = pixels.copy()
        pixels[..., :3] = rng.integers(150, 256, 3)
    image = Image.fromarray(pixels)
    longest = rng.uniform(*_SIDES) * size / max(image.size)
    image = image.resize(tuple(max(1, round(side * longest)) for side in image.size), Image.Resampling.BICUBIC)
    if objects.mirrored and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-objects.turned, objects.turned), Image.Resampling.BICUBIC, expand=True)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.4))


def _free_place(size: tuple[int, int], taken: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int] | None:
    """A place where nothing is yet, which is then taken; None where none is found."""
    width, height = size
    for _ in range(_TRIES):
        left, top = (int(rng.integers(max(1, len(taken) - side + 1))) for side in (width, height))
        region = taken[top : top + height, left : left + width]
        if not region.any():
            region[:] = True
            return left, top
    return None
