"""Files of a store, read by position: a shard file's index, an array's file of one chunk. No Zarr, no mmap.

pread rather than mmap: a mapped file that is cut short (NFS, Lustre, a full disk) kills the process with SIGBUS.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec
from labelstore.storage.frames import FrameError, decode_frame

_ENTRY = 16  # the index keeps offset and length of a chunk as two uint64
_CHECKSUM = 4
MISSING = 0
"""The length that stands for a chunk that is not there."""


class DataFile:
    """One open file of a store: threads share it, forked processes too. Closed when let go."""

    __slots__ = ("fd", "length", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.length = os.fstat(self.fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; fewer where the file ends."""
        return os.pread(self.fd, length, offset)

    def tail(self) -> int:
        """Return the last four bytes as a little-endian number: a shard file's index checksum."""
        return int.from_bytes(self.read(max(self.length - _CHECKSUM, 0), _CHECKSUM), "little")

    def __del__(self) -> None:
        fd = getattr(self, "fd", None)
        if fd is not None:
            os.close(fd)


def read_index(file: DataFile, shard_size: int) -> NDArray[np.int64]:
    """Return the (offset, length) of a shard file's chunks, int64 ``[shard_size, 2]``; length `MISSING` where there is none.

    Raises
    ------
    DamagedError
        The index does not match its checksum, or points out of the file.
    """
    size = shard_size * _ENTRY + _CHECKSUM
    raw = file.read(max(file.length - size, 0), size)
    if len(raw) != size or google_crc32c.value(raw[:-_CHECKSUM]) != int.from_bytes(raw[-_CHECKSUM:], "little"):
        raise DamagedError(f"{file.path}: the shard's index does not match its checksum")
    index = np.frombuffer(raw, "<u8", shard_size * 2).reshape(shard_size, 2)
    absent = (index == np.uint64(2**64 - 1)).all(axis=1)
    end = np.uint64(file.length - size)
    outside = ~absent & ((index > end).any(axis=1) | (index[:, 0] + index[:, 1] > end))
    if outside.any():
        local = int(np.argmax(outside))
        raise DamagedError(f"{file.path}: the index places chunk {local} at {index[local].tolist()}, outside of the file")
    found: NDArray[np.int64] = np.where(absent[:, None], MISSING, index).astype(np.int64)
    return found


def decode_chunk(data: bytes, spec: ArraySpec, rows: int, path: str) -> NDArray[Any]:
    """Return the rows in a file that is one zstd chunk.

    Raises
    ------
    DamagedError
        It does not decode to what its checksum says.
    """
    shape = (rows, *spec.row_shape)
    try:
        decoded = decode_frame(data, rows * spec.row_bytes)
    except FrameError as error:
        raise DamagedError(f"{path}: damaged: {error}") from error
    return np.frombuffer(decoded, spec.numpy_dtype).reshape(shape)


def read_chunk(path: str, spec: ArraySpec, rows: int) -> NDArray[Any] | None:
    """Return the rows in a file that is one zstd chunk; None if there is no such file. Raises as `decode_chunk` does."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    return decode_chunk(data, spec, rows, path)
