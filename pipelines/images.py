"""Images: which there are below a folder, and one image's bytes to the pixels that an annotator wants."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from labelstore.errors import ImageDecodeError, ImagesError
from labelstore.pipelines.annotators.spec import Preprocessing

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""torchvision's ImageFolder's, and GIF."""
_NO_CLASS_FOLDERS = -1


@dataclass(frozen=True)
class ImageListing:
    """The images below a root, in byte order of their ids.

    ``targets`` are indices into ``target_names`` where every image lies in a folder below the root, as torchvision's
    ImageFolder counts them; else -1 and None.
    """

    root: Path
    ids: tuple[str, ...]
    targets: NDArray[np.int32]
    target_names: tuple[str, ...] | None


def list_images(root: Path) -> ImageListing:
    """List the images below a folder, links followed.

    Raises
    ------
    ImagesError
        The folder is missing, empty, holds no image, or a file's name cannot be an image id.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise ImagesError(f"{root}: expected a folder of images, found {found}")
    others = 0
    ids: list[str] = []
    for prefix, names in _walk(root):
        images = [name for name in names if name.lower().endswith(EXTENSIONS)]
        others += len(names) - len(images)
        ids.extend(prefix + name for name in images)
    if not ids:
        raise ImagesError(f"{root}: no images below this folder ({others} other files); known: {', '.join(EXTENSIONS)}")
    _check_ids(root, ids)
    ids.sort(key=str.encode)
    return ImageListing(root, tuple(ids), *_targets(ids))


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield folders, as prefixes of ids, and their files. Links are followed, but not back into a folder they lie in."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        prefix, above = waiting.pop()
        folder = root / prefix
        try:
            with os.scandir(folder) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries]
            status = folder.stat()
        except OSError as error:
            raise ImagesError(f"{folder}: cannot be read: {error.strerror}") from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        waiting.extend((f"{prefix}{name}/", above | {here}) for name, is_folder in found if is_folder)
        yield prefix, [name for name, is_folder in found if not is_folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it fails, and the row says why
        return False


def _check_ids(root: Path, ids: list[str]) -> None:
    for image_id in ids:
        try:
            image_id.encode()
        except UnicodeEncodeError:
            raise ImagesError(f"{root}: file name {os.fsencode(image_id)!r}: expected UTF-8; rename the file") from None


def _targets(ids: list[str]) -> tuple[NDArray[np.int32], tuple[str, ...] | None]:
    folders = [image_id.split("/", 1)[0] if "/" in image_id else None for image_id in ids]
    names = sorted({folder for folder in folders if folder is not None})
    if None in folders:
        return np.full(len(ids), _NO_CLASS_FOLDERS, np.int32), None
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[folder] for folder in folders if folder is not None], np.int32), tuple(names)


class _Quiet:
    """No warnings inside. `warnings.catch_warnings` alone, left by two threads in another order than they came in, would
    silence the process for good: so the first thread in and the last one out hold it for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


def decode_image(data: bytes, exif: str = "ignore") -> Image.Image:
    """Decode an image file as torchvision's ImageFolder does: the first frame, converted to RGB.

    Parameters
    ----------
    exif
        ``ignore``: the pixels as stored, as ImageFolder; ``apply``: turned upright as the EXIF orientation says.

    Raises
    ------
    ImageDecodeError
        Empty, cut short, no image, or too large (Pillow's limit against decompression bombs: 179 million pixels).
    """
    if not data:
        raise ImageDecodeError("the file is empty")
    try:
        with _QUIET:  # half-broken metadata, large pictures: decoded all the same
            image: Image.Image = Image.open(io.BytesIO(data))
            image.load()
            if exif == "apply":
                image = ImageOps.exif_transpose(image)
            return image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        words = str(error).split("<")[0].strip() or type(error).__name__
        raise ImageDecodeError(f"cannot be decoded: {words}") from error


def image_pixels(data: bytes, how: Preprocessing, exif: str) -> NDArray[np.uint8]:
    """Return the whole image, squashed to the annotator's square input: uint8 ``[S, S, 3]``.

    Never a centre crop: the map must cover the image.
    """
    size = (how.input_size, how.input_size)
    image = decode_image(data, exif)
    return np.asarray(image.resize(size, Image.Resampling[how.interpolation.upper()]))
