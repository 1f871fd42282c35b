"""One image's bytes to the pixels that an annotator wants."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from labelstore.errors import ImageDecodeError
from labelstore.image_formats import formats, is_tga
from labelstore.pipelines.annotators.spec import Preprocessing
from labelstore.pipelines.image_memory import MOST_PIXELS, ROOM, pixels_held, webp_size
from labelstore.pipelines.resizing import LARGE, squash
from labelstore.pixels import AS_IMAGE_FOLDER, ReadRules, is_deep, to_rgb

_HUNGRY = ("JPEG2000", "AVIF", "HEIF")
"""Formats whose decoders hold twice the memory of others."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
"""TIFF's numbers of these tags."""


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


QUIET = _Quiet()


def decode_image(data: bytes, rules: ReadRules = AS_IMAGE_FOLDER) -> Image.Image:
    """Decode an image file by the rules, by default as torchvision's ImageFolder does: the first frame, converted to RGB.

    Raises
    ------
    ImageDecodeError
        Empty, cut short, no image, or too large: above 178,956,970 pixels (Pillow's limit against decompression bombs), or
        with a side above 65,535; or refused by the rules.
    """
    with _opened(data) as image:
        return _rgb(image, rules)


def image_pixels(
    data: bytes,
    inputs: Sequence[Preprocessing],
    rules: ReadRules = AS_IMAGE_FOLDER,
    note: Callable[[tuple[int, int], bool], object] = lambda size, deep: None,
) -> tuple[NDArray[np.uint8], ...]:
    """Return the whole image, squashed to annotators' square inputs: for each uint8 ``[S, S, 3]``.

    ``note`` is called with its width and height, turned as the rules say, and whether it is greyscale of more than 8 bits, of
    which 8 are made.

    Never a centre crop: the map must cover the image. A process decodes at most 178,956,970 pixels at one time, by however many
    threads, the others wait: up to 3 GB of memory for one WebP file of that size, 2.1 GB for anything else.

    Raises
    ------
    ImageDecodeError
        As `decode_image`.
    """
    with _opened(data, max(how.input_size for how in inputs)) as image:
        whole = _rgb(image, rules)
        note(whole.size, is_deep(image.mode))
        return tuple(squash(whole, how) for how in inputs)


def resized(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    """Return decoded pixels ``[h, w, 3]`` as `image_pixels` resizes them."""
    return np.array(squash(Image.fromarray(pixels), how))


def size_in_header(data: bytes) -> tuple[int, int]:
    """Return the width and height that an image file claims, not turned. Raises as `decode_image` does before it decodes."""
    with _opened(data) as image:
        return image.size


def is_plain_jpeg(data: bytes) -> bool:
    """Whether a JPEG file is whole, grey or YCbCr, and of at most 17 million pixels: any decoder makes the same of it."""
    try:
        with _opened(data) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and image.width * image.height <= LARGE
    except ImageDecodeError:
        return False
    return plain and data.rstrip(b"\0").endswith(b"\xff\xd9")


@contextmanager
def _opened(data: bytes, side: int = 0) -> Iterator[Image.Image]:
    """An image of which the header alone is read so far, with room for it and for a square of that side made of it."""
    if not data:
        raise ImageDecodeError("the file is empty")
    try:
        with QUIET, ExitStack() as room:  # half-broken metadata, large pictures: decoded all the same
            size = webp_size(data)
            if size is not None:
                room.enter_context(ROOM.for_pixels(2 * pixels_held(size, side)))
            image = _open(data)
            if size is None:
                hungry = 2 if image.format in _HUNGRY else 1
                held = pixels_held(image.size, side, _tile(image), MOST_PIXELS // hungry)
                room.enter_context(ROOM.for_pixels(hungry * held))
            yield image
    except ImageDecodeError:
        raise
    except MemoryError as error:
        raise ImageDecodeError("cannot be decoded: out of memory") from error
    except UnidentifiedImageError as error:
        raise ImageDecodeError(f"cannot be decoded: {_what_else(data)}") from error
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        words = str(error).split("<")[0].strip() or type(error).__name__
        raise ImageDecodeError(f"cannot be decoded: {words}") from error


def _open(data: bytes) -> Image.Image:
    known = [name for name in formats() if name != "TGA"]
    try:
        return Image.open(io.BytesIO(data), formats=known)
    except UnidentifiedImageError:
        if not is_tga(data):
            raise
        return Image.open(io.BytesIO(data), formats=["TGA"])


def _what_else(data: bytes) -> str:
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "it is a web page, no image" if start.startswith((b"<!doctype html", b"<html")) else "cannot identify image file"


def _tile(image: Image.Image) -> tuple[int, int]:
    """The width and height of a TIFF file's tiles, 0 where there are none."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)


def _rgb(image: Image.Image, rules: ReadRules) -> Image.Image:
    image.load()
    if rules.exif == "apply":
        ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image, rules.grey16)
