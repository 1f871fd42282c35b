"""How large an image may be, and room in memory for those that are decoded at one time."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.resizing import LARGE
from labelstore.schema import MAX_IMAGE_SIDE

MOST_PIXELS = 178_956_970
"""Of an image, and of all that a process decodes at one time. Pillow's limit against decompression bombs."""


class Room:
    """Room for so many pixels in this process: who has none waits. Thread-safe."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def for_pixels(self, count: int) -> Iterator[None]:
        """Take room for pixels, at most all of it."""
        count = min(count, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


ROOM = Room(MOST_PIXELS)


def pixels_held(size: tuple[int, int], side: int, tile: tuple[int, int] = (0, 0), most: int = MOST_PIXELS) -> int:
    """Return how many pixels there are while an image is made into a square: its own, its copy where one is made, those of its
    rows when they have that width already, and those of a tile, which may be larger than the image.

    Raises
    ------
    ImageDecodeError
        They are too many.
    """
    width, height = size
    if max(width, height) > MAX_IMAGE_SIDE:  # Pillow keeps some bytes for every row, and for every column when it resizes
        raise ImageDecodeError(f"{width} x {height} pixels are too many: expected sides of at most {MAX_IMAGE_SIDE}")
    count = width * height + side * height + tile[0] * tile[1]
    if count > most:
        tiles = f" in tiles of {tile[0]} x {tile[1]}" if any(tile) else ""
        raise ImageDecodeError(f"{width} x {height} pixels{tiles} are too many: expected at most {most}")
    return count + count // 2 if width * height <= LARGE else count


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that a WebP file says it has (RFC 9649), None for any other file.

    Pillow takes memory for two whole frames of it when it opens the file.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF
