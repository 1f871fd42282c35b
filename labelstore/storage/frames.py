"""zstd frames that must carry a checksum and hold a known number of bytes: one, or a whole batch in one go."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import zstandard

FrameError = zstandard.ZstdError
_MAGIC = bytes.fromhex("28b52ffd")
_CHECKSUM, _SINGLE_SEGMENT = 0x04, 0x20
_FRAME_EXTRA = 64


class _Local(threading.local):
    """What each thread has of its own: decompressors must not be shared."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_local = _Local()


def decode_frame(data: bytes, size: int) -> bytes:
    """Decode one frame.

    Its header is looked at first: a hostile one must not make us allocate, and a frame whose checksum flag was lost must
    not pass unchecked.

    Raises
    ------
    FrameError
        It has no checksum, or does not decode to ``size`` bytes with that checksum.
    """
    if not data.startswith(usual_header(size)):
        header = zstandard.get_frame_parameters(data)
        if not header.has_checksum or header.content_size != size:
            raise FrameError(f"expected a frame of {size} bytes with a checksum, found {header.content_size}")
    decoded: bytes = _local.decompressor.decompress(data)
    if len(decoded) != size:
        raise FrameError(f"expected {size} bytes, found {len(decoded)}")
    return decoded


def decode_usual(data: bytes) -> bytes:
    """Decode a frame that starts with the `usual_header` of its size: it has a checksum, and no other size to it."""
    return _local.decompressor.decompress(data)


def decode_frames(frames: Sequence[bytes], size: int, out: memoryview) -> None:
    """Decode frames of ``size`` bytes each, one after the other into ``out``.

    One call decodes them all, in which the interpreter is free for other threads.

    Raises
    ------
    FrameError
        Any of them is damaged; `decode_frame` tells which.
    """
    usual = usual_header(size)
    if {frame[: len(usual)] for frame in frames} - {usual}:
        for place, frame in enumerate(frames):
            out[place * size : (place + 1) * size] = decode_frame(frame, size)
        return
    given: list[bytes | bytearray | memoryview] = list(frames)
    if given:
        sizes = size.to_bytes(8, "little") * len(given)
        decoded: Any = _local.decompressor.multi_decompress_to_buffer(given, decompressed_sizes=sizes, threads=1)
        for place in range(len(given)):
            out[place * size : (place + 1) * size] = decoded[place]


def largest_frame(size: int) -> int:
    """Return the bytes that a frame of ``size`` bytes may take, incompressible content included (ZSTD_compressBound)."""
    return size + (size >> 8) + (max((128 << 10) - size, 0) >> 11) + _FRAME_EXTRA


@lru_cache
def usual_header(size: int) -> bytes:
    """How a frame starts that was made in one call from ``size`` bytes, with a checksum (RFC 8878, 3.1.1.1)."""
    if size < 256:
        flag, field = 0, size.to_bytes(1, "little")
    elif size < 65536 + 256:
        flag, field = 1, (size - 256).to_bytes(2, "little")
    else:
        flag, field = 2, size.to_bytes(4, "little")
    return _MAGIC + bytes([flag << 6 | _SINGLE_SEGMENT | _CHECKSUM]) + field
