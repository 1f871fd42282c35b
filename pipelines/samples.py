"""The sample photographs that installed packages ship: something real to annotate before anything is downloaded."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from labelstore.errors import ImagesError, MissingExtraError

FOLDER = "labelstore-samples"
SAMPLES = {
    "skimage.data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "moon.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}
"""Photographs only: the drawings, text pages and test patterns of these packages are left out."""


def copy_samples(root: Path) -> Path:
    """Copy the sample photographs into one folder, and return it. Files that are there already are kept.

    Raises
    ------
    MissingExtraError
        scikit-image or scikit-learn is not installed, or no longer ships one of the files.
    ImagesError
        The folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for package, names in SAMPLES.items():
            for name in names:
                if not (root / name).exists():
                    _copy(_find(package, name), root / name)
    except OSError as error:
        reason = f"cannot be made: {error.strerror}; name a folder of images, or go to a folder that can be written"
        raise ImagesError(f"{root}: the folder for the sample photographs {reason}") from error
    return root


def _find(package: str, name: str) -> Traversable:
    try:
        found = files(package).joinpath(name)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.is_file():
        raise MissingExtraError(
            f"the sample photograph {name} of {package} is not here: pip install 'labelstore[demo]', or name a folder of images"
        )
    return found


def _copy(source: Traversable, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(source.read_bytes())
    partial.replace(target)  # a copy that is cut off would be kept by the next run
