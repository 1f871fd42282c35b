"""What a data set knows of its images: their ids, files and classes, also through `torch.utils.data.Subset`."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from torch.utils.data import Subset
from torchvision.datasets.folder import default_loader, pil_loader

from labelstore.errors import ImageMismatchError, ImagesError
from labelstore.reader import LabelMapReader

Ids = Sequence[str] | Callable[[int], str]


def load_upright(path: str | Path) -> Image.Image:
    """Load an image as RGB, turned as its EXIF tag says: the loader for stores that were annotated with ``--exif apply``."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


class DatasetImages:
    """The images of a map-style data set.

    Parameters
    ----------
    dataset
        torchvision's ImageFolder or DatasetFolder, a Subset of one, or any other with ``ids``.
    ids
        The image ids by index: a sequence or a function. By default the files' paths below the folder's root.

    Raises
    ------
    ImagesError
        It is no such data set, or it transforms its images by itself.
    """

    def __init__(self, dataset: Any, ids: Ids | None = None) -> None:
        base, places = dataset, None
        while isinstance(base, Subset):
            indices = [int(index) for index in base.indices]
            places = indices if places is None else [indices[place] for place in places]
            base = base.dataset
        for name in ("transform", "transforms"):
            if getattr(base, name, None) is not None:
                raise ImagesError(
                    f"{type(base).__name__} has a {name} of its own, so that the box of its crops is lost: make it without, "
                    "and hand the transform to SoftLabelDataset"
                )
        self._base, self._places, self._count = base, places, len(dataset)
        self.classes: tuple[str, ...] | None = _classes(base)
        self.loader: Any = getattr(base, "loader", None)
        self.ids = self._paths_as_ids() if ids is None else self._given(ids)

    def path(self, index: int) -> str:
        """Return the image's file.

        Raises
        ------
        ImagesError
            The data set does not say.
        """
        samples = getattr(self._base, "samples", None)
        if samples is None:
            raise ImagesError(f"{type(self._base).__name__} does not say where its images' files are (it has no `samples`)")
        return str(samples[index if self._places is None else self._places[index]][0])

    def _paths_as_ids(self) -> list[str]:
        if not hasattr(self._base, "samples") or not hasattr(self._base, "root"):
            raise ImagesError(
                f"{type(self._base).__name__}: expected an ImageFolder, or `ids`: the store's image id of each item, as a list "
                "or as a function of its index"
            )
        root = getattr(self._base, "split_folder", self._base.root)  # torchvision's ImageNet: the folder of its split
        return [os.path.relpath(self.path(index), root).replace(os.sep, "/") for index in range(self._count)]

    def _given(self, ids: Ids) -> list[str]:
        found = [ids(index) for index in range(self._count)] if callable(ids) else list(ids)
        if len(found) != self._count:
            raise ImagesError(f"ids: expected {self._count}, one for each item of the data set, got {len(found)}")
        return found


def check_crc32(reader: LabelMapReader, row: int, key: str, path: str) -> None:
    """Hold an image's file against the one that its label map was made from.

    Raises
    ------
    ImageMismatchError
    """
    expected, found = reader.image_crc32(row), zlib.crc32(Path(path).read_bytes())
    if found != expected:
        raise ImageMismatchError(
            f"{path}: not the image that row {row} ({key!r}) was made from: expected crc32 {expected:08x}, found {found:08x}"
        )


def check_orientation(loader: Any, exif: str) -> None:
    """Refuse a loader that is known to turn images otherwise than the store's annotator saw them.

    Raises
    ------
    ImagesError
    """
    if exif == "apply" and loader in (default_loader, pil_loader):
        raise ImagesError(
            "the store was made of images turned upright (exif: apply), which torchvision's loader does not do: "
            "ImageFolder(..., loader=labelstore.torch.load_upright)"
        )
    if exif == "ignore" and loader is load_upright:
        raise ImagesError("the store was made of images as they are stored (exif: ignore): leave load_upright out")


def _classes(base: Any) -> tuple[str, ...] | None:
    classes = getattr(
        base, "wnids", getattr(base, "classes", None)
    )  # torchvision's ImageNet has names as classes, ids as wnids
    return None if classes is None else tuple(map(str, classes))
