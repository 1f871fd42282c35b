"""Chunks that are not compressed: a row's bytes, then their crc32c (Zarr's ``bytes`` and ``crc32c`` codecs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.storage.frames import FrameError

CHECKSUM_BYTES = 4
CRC32C_RESIDUE = 0x48674BC7
"""The crc32c of anything that is followed by its own crc32c."""
_JOIN = bytearray().join


def check_plain(data: bytes, size: int) -> bytes:
    """Return a chunk's ``size`` bytes.

    Raises
    ------
    FrameError
        Another length, or they do not match their checksum.
    """
    if len(data) != size + CHECKSUM_BYTES:
        raise FrameError(f"expected {size} bytes and a checksum, found {len(data)}")
    if google_crc32c.value(data) != CRC32C_RESIDUE:
        raise FrameError("expected bytes that match their crc32c, found others")
    return data[:size]


def check_plains(chunks: Sequence[bytes], size: int) -> NDArray[Any]:
    """Return chunks' bytes, uint8 ``[n, size]``. Raises as `check_plain`, which tells which chunk it is."""
    if set(map(len, chunks)) - {size + CHECKSUM_BYTES} or set(map(google_crc32c.value, chunks)) - {CRC32C_RESIDUE}:
        raise FrameError("expected chunks that match their checksums, found others")
    return np.frombuffer(_JOIN(chunks), np.uint8).reshape(len(chunks), size + CHECKSUM_BYTES)[:, :size]
