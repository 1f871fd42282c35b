"""Images from their places to pixels, read and decoded by threads ahead of whoever takes them, at most so many of them."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators.spec import Preprocessing
from labelstore.pipelines.images import image_pixels
from labelstore.pipelines.sources.places import Place

READ_AHEAD = 32
_READERS = 8


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the annotators, or why it is not.

    ``pixels`` are uint8 ``[S, S, 3]``, one array for each size that is wanted; ``jpeg`` are its bytes instead, where they are
    to be decoded on the device; ``crc32`` is of the file's bytes, 0 if they were not read.
    """

    pixels: tuple[NDArray[np.uint8], ...] | None
    crc32: int
    error: str = ""
    jpeg: bytes | None = None


@dataclass(frozen=True)
class LoadSpec:
    """How images are loaded.

    Parameters
    ----------
    inputs
        What each image is made into.
    exif
        ``ignore`` or ``apply``.
    threads
        That decode.
    ahead
        Images that are decoded before they are asked for. 0: when a batch is asked for all threads work on it, and
        none of them disturbs the annotator; the files are read ahead all the same.
    keep_jpegs
        Whether JPEG files are handed on undecoded.
    """

    inputs: tuple[Preprocessing, ...]
    exif: str
    threads: int
    ahead: int = 0
    keep_jpegs: bool = False


@dataclass(frozen=True)
class _File:
    data: bytes | None
    error: str = ""


def load_image(place: Place, spec: LoadSpec) -> LoadedImage:
    """Read, decode and resize one image; what goes wrong becomes its error."""
    return _decode(_read(place), spec)


def load_batches(places: Sequence[Place], sizes: Sequence[int], spec: LoadSpec) -> Iterator[list[LoadedImage]]:
    """Yield images in batches of the sizes, in order."""
    with (
        ThreadPoolExecutor(_READERS, "read") as readers,
        ThreadPoolExecutor(spec.threads, "decode") as decoders,
    ):
        waiting = iter(places)
        files: deque[Future[_File]] = deque()
        images: deque[Future[LoadedImage]] = deque()

        def more(count: int) -> None:
            """Have so many images decoded or about to be, and the next files read."""
            for place in itertools.islice(waiting, max(count + READ_AHEAD - len(images) - len(files), 0)):
                files.append(readers.submit(_read, place))
            while files and len(images) < count:
                images.append(decoders.submit(_decode_when_read, files.popleft(), spec))

        try:
            for size in sizes:
                more(size + spec.ahead)
                batch = [images.popleft().result() for _ in range(size)]
                more(spec.ahead)
                yield batch
        finally:
            for file in files:
                file.cancel()
            for image in images:
                image.cancel()


def _decode_when_read(file: Future[_File], spec: LoadSpec) -> LoadedImage:
    return _decode(file.result(), spec)


def _read(place: Place) -> _File:
    try:
        return _File(place.read())
    except OSError as error:
        return _File(None, f"cannot be read: {error.strerror or error}")
    except MemoryError:
        return _File(None, "cannot be read: out of memory")


def _decode(file: _File, spec: LoadSpec) -> LoadedImage:
    if file.data is None:
        return LoadedImage(None, 0, file.error)
    crc32 = zlib.crc32(file.data)
    try:
        if spec.keep_jpegs and file.data[:3] == b"\xff\xd8\xff":
            return LoadedImage(None, crc32, jpeg=file.data)
        return LoadedImage(image_pixels(file.data, spec.inputs, spec.exif), crc32)
    except ImageDecodeError as error:
        return LoadedImage(None, crc32, str(error))
