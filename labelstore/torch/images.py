"""The images of a data set: their ids and files, and whether they are what the store was made from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from torchvision.datasets.folder import default_loader, pil_loader

from labelstore.errors import ImageMismatchError, ImagesError
from labelstore.pixels import AS_IMAGE_FOLDER, ReadRules, to_rgb
from labelstore.reader import LabelMapReader
from labelstore.torch.datasets import look_at

Ids = Sequence[str] | Callable[[int], str]


def load_upright(path: str | Path) -> Image.Image:
    """Load an image as RGB, turned as its EXIF tag says: the loader for stores that were annotated with ``--exif apply``."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@dataclass(frozen=True)
class ImageLoader:
    """Loads an image as RGB by the rules that a store's images were read by; what ImageFolder takes as ``loader``.

    Raises
    ------
    ImageDecodeError
        When called: greyscale of more than 8 bits, and the rule is ``fail``.
    """

    rules: ReadRules

    def __call__(self, path: str | Path) -> Image.Image:
        """Load an image."""
        with Image.open(path) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image) if self.rules.exif == "apply" else image, self.rules.grey16)


def loader_for(reader: LabelMapReader) -> ImageLoader:
    """Return the loader that reads images as the annotator of a store saw them."""
    return ImageLoader(ReadRules.of(reader.info))


class DatasetImages:
    """The images of a map-style data set.

    Parameters
    ----------
    dataset
        One that `labelstore.torch.datasets` knows, or any other with ``ids``.
    ids
        The image ids by index: a sequence or a function. By default the files' paths below the folder's root.
    image_key, label_key
        Where image and label are in items that are dicts.

    Raises
    ------
    ImagesError
        It is no such data set, or it transforms its images by itself.
    """

    def __init__(
        self, dataset: Any, ids: Ids | None = None, image_key: str | None = None, label_key: str | None = None
    ) -> None:
        known = look_at(dataset, image_key, label_key)
        self._name, self._count, self._files = type(dataset).__name__, len(dataset), known.files
        self.classes, self.loaders, self.item = known.classes, known.loaders, known.item
        self.ids = self._known(known.ids) if ids is None else self._given(ids)

    def path(self, index: int) -> str:
        """Return the image's file.

        Raises
        ------
        ImagesError
            The data set does not say.
        """
        if self._files is None:
            raise ImagesError(f"{self._name} does not say where its images' files are (it has no `samples`)")
        return self._files[index]

    def _known(self, ids: Sequence[str] | None) -> Sequence[str]:
        if ids is None:
            raise ImagesError(
                f"{self._name}: expected an ImageFolder, or `ids`: the store's image id of each item, as a list "
                "or as a function of its index"
            )
        return ids

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


def check_loaders(loaders: Sequence[Any], stored: ReadRules) -> None:
    """Refuse loaders of which one is known to make other pixels of an image than the store's annotator saw.

    Raises
    ------
    ImagesError
    """
    for rules in (rules for loader in loaders if (rules := _rules_of(loader)) is not None):
        if stored.exif == "apply" != rules.exif:
            raise ImagesError(
                "the store was made of images turned upright (exif: apply), which torchvision's loader does not do: "
                "ImageFolder(..., loader=labelstore.torch.load_upright), or loader_for(reader)"
            )
        if stored.exif == "ignore" != rules.exif:
            raise ImagesError("the store was made of images as they are stored (exif: ignore): leave load_upright out")
        if stored.grey16 != "fail" != rules.grey16 and stored.grey16 != rules.grey16:
            raise ImagesError(
                f"the store was made with --grey16 {stored.grey16}, the loader's rule for greyscale of more than 8 bits is "
                f"{rules.grey16!r}: ImageFolder(..., loader=labelstore.torch.loader_for(reader))"
            )


def _rules_of(loader: Any) -> ReadRules | None:
    """The rules of a loader that is known; None of any other."""
    if isinstance(loader, ImageLoader):
        return loader.rules
    if loader in (default_loader, pil_loader):
        return AS_IMAGE_FOLDER
    return ReadRules(exif="apply") if loader is load_upright else None
