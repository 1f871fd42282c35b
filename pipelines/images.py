"""One image's bytes to the pixels that an annotator wants."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators.spec import Preprocessing

_LARGE = 2**24
"""Pixels beyond which images are decoded one at a time."""


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


_ONE_LARGE = threading.Lock()


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
    with _opened(data) as image:
        return _rgb(image, exif)


def image_pixels(data: bytes, inputs: Sequence[Preprocessing], exif: str) -> tuple[NDArray[np.uint8], ...]:
    """Return the whole image, squashed to annotators' square inputs: for each uint8 ``[S, S, 3]``.

    Never a centre crop: the map must cover the image. Of images above 17 million pixels one a process is decoded at a time:
    at Pillow's limit such an image takes up to 2 GB while it lasts.

    Raises
    ------
    ImageDecodeError
        As `decode_image`.
    """
    with _opened(data) as image, _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
        whole = _rgb(image, exif)
        sizes = [((how.input_size, how.input_size), Image.Resampling[how.interpolation.upper()]) for how in inputs]
        return tuple(np.asarray(whole.resize(size, resampling)) for size, resampling in sizes)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """An image of which the header alone is read so far."""
    if not data:
        raise ImageDecodeError("the file is empty")
    try:
        with _QUIET:  # half-broken metadata, large pictures: decoded all the same
            yield Image.open(io.BytesIO(data))
    except MemoryError as error:
        raise ImageDecodeError("cannot be decoded: out of memory") from error
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them raise
        words = str(error).split("<")[0].strip() or type(error).__name__
        raise ImageDecodeError(f"cannot be decoded: {words}") from error


def _rgb(image: Image.Image, exif: str) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image) if exif == "apply" else image
    return upright.convert("RGB")
