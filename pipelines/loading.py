"""Images from their places to pixels, read and decoded by threads ahead of whoever takes them, at most so many of them."""

from __future__ import annotations

import itertools
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators.spec import Preprocessing
from labelstore.pipelines.images import image_pixels, size_in_header
from labelstore.pipelines.resizing import one_core
from labelstore.pipelines.sources.places import Place
from labelstore.pixels import ReadRules

READ_AHEAD = 32
MOST_HELD = 2**28
"""Bytes of files that may wait to be decoded before no more are read; what is being read then comes on top."""
_READERS = 8


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the annotators, or why it is not.

    ``pixels`` are uint8 ``[S, S, 3]``, one array for each size that is wanted; ``jpeg`` are its bytes instead, where they are
    to be decoded on the device; ``crc32`` is of the file's bytes, 0 if they were not read; ``converted`` says that 8 bits were
    made of more; ``size`` is the image's width and height, turned as the rules say, zeros if it was not decoded.
    """

    pixels: tuple[NDArray[np.uint8], ...] | None
    crc32: int
    error: str = ""
    jpeg: bytes | None = None
    converted: bool = False
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class LoadSpec:
    """How images are loaded.

    Parameters
    ----------
    inputs
        What each image is made into.
    rules
        How they become pixels.
    threads
        That decode.
    ahead
        Images that are decoded before they are asked for. 0: when a batch is asked for all threads work on it, and
        none of them disturbs the annotator; the files are read ahead all the same.
    keep_jpegs
        Whether JPEG files are handed on undecoded.
    """

    inputs: tuple[Preprocessing, ...]
    rules: ReadRules
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
        ThreadPoolExecutor(spec.threads, "decode", one_core) as decoders,
    ):
        waiting = enumerate(places)
        held = _Held(MOST_HELD)
        files: deque[Future[_File]] = deque()
        images: deque[Future[LoadedImage]] = deque()

        def more(count: int) -> None:
            """Have so many images decoded or about to be, and the next files read."""
            for number, place in itertools.islice(waiting, max(count + READ_AHEAD - len(images) - len(files), 0)):
                files.append(readers.submit(held.read, number, place))
            while files and len(images) < count:
                images.append(decoders.submit(held.decode, files.popleft(), spec))

        try:
            for size in sizes:
                more(size + spec.ahead)
                batch = [images.popleft().result() for _ in range(size)]
                more(spec.ahead)
                yield batch
        finally:
            held.give_up()
            for file in files:
                file.cancel()
            for image in images:
                image.cancel()


class _Held:
    """Files that are read and not decoded yet. While they are too many bytes, readers wait, but never for the file that is to
    be decoded first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._decoded = 0
        self._over = False
        self._changed = threading.Condition()

    def read(self, number: int, place: Place) -> _File:
        """Read the file of that number, when there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < self._most or number <= self._decoded or self._over)
        file = _read(place)
        with self._changed:
            self._bytes += len(file.data or b"")
        return file

    def decode(self, reading: Future[_File], spec: LoadSpec) -> LoadedImage:
        """Decode a file when it is read, and let go of it."""
        size = 0
        try:
            file = reading.result()
            size = len(file.data or b"")
            return _decode(file, spec)
        finally:
            with self._changed:
                self._bytes -= size
                self._decoded += 1
                self._changed.notify_all()

    def give_up(self) -> None:
        """Let readers go on: nobody decodes any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _read(place: Place) -> _File:
    try:
        return _File(place.read())
    except OSError as error:
        return _File(None, f"cannot be read: {error.strerror or error}")
    except MemoryError:
        return _File(None, "cannot be read: out of memory")
    except ImageDecodeError as error:
        return _File(None, str(error))


def _decode(file: _File, spec: LoadSpec) -> LoadedImage:
    if file.data is None:
        return LoadedImage(None, 0, file.error)
    crc32 = zlib.crc32(file.data)
    try:
        if spec.keep_jpegs and file.data[:3] == b"\xff\xd8\xff":
            return LoadedImage(None, crc32, jpeg=file.data, size=_claimed_size(file.data))
        noted: list[tuple[tuple[int, int], bool]] = []
        pixels = image_pixels(file.data, spec.inputs, spec.rules, lambda *seen: noted.append(seen))
        ((size, deep),) = noted
        return LoadedImage(pixels, crc32, converted=deep, size=size)
    except ImageDecodeError as error:
        return LoadedImage(None, crc32, str(error))


def _claimed_size(jpeg: bytes) -> tuple[int, int]:
    """The size of a file that the device is to decode, which turns none; zeros of one that it will not decode either."""
    try:
        return size_in_header(jpeg)
    except ImageDecodeError:
        return 0, 0
