"""Real JPEGs to measure with: random crops of the sample photographs, the size of ImageNet's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from labelstore.pipelines.samples import copy_samples

SIDE = (500, 375)


def make_photos(folder: Path, count: int, seed: int = 0) -> Path:
    """Save ``count`` crops as ``folder/jpegs/00000.jpg``, ..., and return that folder. Kept if they are there already."""
    root = folder / "jpegs"
    if len(list(root.glob("*.jpg"))) >= count:
        return root
    root.mkdir(parents=True, exist_ok=True)
    sources = [Image.open(path).convert("RGB") for path in sorted(copy_samples(folder / "samples").iterdir())]
    rng = np.random.default_rng(seed)
    for number in range(count):
        crop(sources[int(rng.integers(len(sources)))], rng).save(root / f"{number:05}.jpg", quality=90)
    return root


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random part of a photograph, at least half of each side, resized to 500x375."""
    width, height = (int(side * rng.uniform(0.5, 1.0)) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height)).resize(SIDE, Image.Resampling.BICUBIC)
