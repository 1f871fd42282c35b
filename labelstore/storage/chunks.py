"""Chunks of bytes: pread, zstd with its checksum, a shard file's index. No Zarr, no mmap.

pread rather than mmap: a mapped file that is cut short (NFS, Lustre, a full disk) kills the process with SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zstandard
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.storage.base import DamagedRowError

_ENTRY = 16  # the index keeps offset and length of a chunk as two uint64
_CHECKSUM = 4


class DataFile:
    """One open file of a store, read by position: threads share it, forked processes too. Closed when let go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.length = os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; fewer where the file ends."""
        return os.pread(self._fd, length, offset)

    def tail(self) -> int:
        """Return the last four bytes as a little-endian number: a shard file's index checksum."""
        return int.from_bytes(self.read(max(self.length - _CHECKSUM, 0), _CHECKSUM), "little")

    def __del__(self) -> None:
        fd = getattr(self, "_fd", None)
        if fd is not None:
            os.close(fd)


class ShardFile:
    """A file of the sharding codec: one zstd chunk a row, an index of uint64 (offset, length) at its end."""

    def __init__(self, file: DataFile, shard_size: int) -> None:
        self._file = file
        size = shard_size * _ENTRY + _CHECKSUM
        raw = file.read(max(file.length - size, 0), size)
        if len(raw) != size or google_crc32c.value(raw[:-_CHECKSUM]) != int.from_bytes(raw[-_CHECKSUM:], "little"):
            raise DamagedError(f"{file.path}: the shard's index does not match its checksum")
        self._index = np.frombuffer(raw, "<u8", shard_size * 2).reshape(shard_size, 2)

    def chunks(self, locals_: NDArray[np.int64], size: int) -> Iterator[bytes]:
        """Yield the decoded chunks of rows, ``size`` bytes each.

        Raises
        ------
        DamagedRowError
            No chunk, a chunk outside the file, or one that does not decode to what its checksum says.
        """
        decompress = zstandard.ZstdDecompressor().decompress
        read, end = self._file.read, self._file.length
        for local, (offset, length) in zip(locals_.tolist(), self._index[locals_].tolist(), strict=True):
            if offset + length > end:
                raise DamagedRowError(local, f"{self._file.path}: no chunk for the row (offset {offset}, {length} bytes)")
            try:
                yield decode_checked(read(offset, length), size, decompress)
            except zstandard.ZstdError as error:
                message = f"{self._file.path}: the chunk at offset {offset} ({length} bytes) is damaged: {error}"
                raise DamagedRowError(local, message) from error


def decode_checked(data: bytes, size: int, decompress: Any) -> bytes:
    """Decode one zstd frame that must carry a checksum and hold exactly ``size`` bytes.

    Asked of the frame's header first: a hostile header must not make us allocate, and a frame whose checksum flag was
    lost must not pass unchecked.
    """
    header = zstandard.get_frame_parameters(data)
    if not header.has_checksum or header.content_size != size:
        raise zstandard.ZstdError(f"expected a frame of {size} bytes with a checksum, found {header.content_size}")
    decoded: bytes = decompress(data)
    if len(decoded) != size:
        raise zstandard.ZstdError(f"expected {size} bytes, found {len(decoded)}")
    return decoded


def read_chunk(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Return the array in a file that is one zstd chunk; None if there is no such file.

    Raises
    ------
    DamagedError
        It does not decode to what its checksum says.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    size = int(np.prod(shape)) * dtype.itemsize
    try:
        decoded = decode_checked(data, size, zstandard.ZstdDecompressor().decompress)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{path}: damaged: {error}") from error
    return np.frombuffer(decoded, dtype).reshape(shape)
