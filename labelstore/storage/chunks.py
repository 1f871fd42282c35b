"""Files of a store, read by position: a shard file's index, an array's file of one chunk. No Zarr, no mmap.

pread rather than mmap: a mapped file that is cut short (NFS, Lustre, a full disk) kills the process with SIGBUS.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError
from labelstore.schema import ArraySpec
from labelstore.storage.budget import close_quietly, open_file
from labelstore.storage.failures import again, unreadable
from labelstore.storage.frames import FrameError, decode_frame, largest_frame
from labelstore.storage.plain import CHECKSUM_BYTES, CRC32C_RESIDUE, check_plain

_ENTRY = 16  # the index keeps offset and length of a chunk as two uint64
_ABSENT = np.uint64(2**64 - 1)
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe"}
MISSING = 0
"""The length that stands for a chunk that is not there."""


class Readable(Protocol):
    """What can be read by position."""

    path: str
    length: int

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; fewer where it ends."""
        ...


class Whole(Readable, Protocol):
    """What can be read whole as well, and held against its commit."""

    def whole(self, most: int) -> bytes:
        """Return all of it, if that is no more than ``most`` bytes."""
        ...

    def seal(self) -> list[int]:
        """Return what a commit keeps of it and is quickly looked up."""
        ...


class DataFile:
    """One open file of a store: threads share it, forked processes too. Closed when let go.

    Parameters
    ----------
    path
        Of the file.
    owner
        The user that it must belong to, and not be a link then; by default anybody.

    Raises
    ------
    FileNotFoundError
        There is none.
    DamagedError
        It is no file: a folder, a device, or a pipe, which is not waited for. Or it is somebody else's.
    StoreReadError
        It cannot be opened.
    """

    __slots__ = ("fd", "length", "path")

    def __init__(self, path: str, owner: int | None = None) -> None:
        self.path = path
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            self.fd = open_file(path, flags if owner is None else flags | os.O_NOFOLLOW)
            found = os.fstat(self.fd)
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(path) from error
        except OSError as error:
            raise unreadable(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{path}: expected a file, found a {_KINDS.get(stat.S_IFMT(found.st_mode), 'device')}")
        if owner is not None and found.st_uid != owner:
            raise DamagedError(f"{path}: expected a file of uid {owner}, found one of uid {found.st_uid}")
        self.length = found.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; fewer where the file ends.

        Raises
        ------
        StoreReadError
        """
        try:
            return os.pread(self.fd, length, offset)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def whole(self, most: int) -> bytes:
        """Return all of it.

        Raises
        ------
        DamagedError
            It has more than ``most`` bytes.
        StoreReadError
        """
        if self.length > most:
            raise DamagedError(f"{self.path}: expected at most {most:,} bytes, found {self.length:,}")
        return self.read(0, self.length)

    def seal(self) -> list[int]:
        """Return what a commit keeps of the file and is quickly looked up: its length, its first and its last four bytes."""
        tail = self.read(max(self.length - CHECKSUM_BYTES, 0), CHECKSUM_BYTES)
        return [self.length, int.from_bytes(self.read(0, CHECKSUM_BYTES), "little"), int.from_bytes(tail, "little")]

    def __del__(self, close: Callable[[int], None] = close_quietly) -> None:
        if hasattr(self, "fd"):
            close(self.fd)


def wrong_seal(expected: list[int], found: list[int]) -> str:
    """Say how a file differs from what its commit keeps of it: length, first and last four bytes."""
    return "expected {} bytes from {:08x} to {:08x}, found {} from {:08x} to {:08x}".format(*expected, *found)


def largest_chunk(spec: ArraySpec) -> int:
    """Return the bytes that a row's chunk may take in a shard file."""
    return largest_frame(spec.row_bytes) if spec.compressed else spec.row_bytes + CHECKSUM_BYTES


def largest_file(spec: ArraySpec, rows: int) -> int:
    """Return the bytes that a file may take which is one chunk of so many rows."""
    size = rows * spec.row_bytes
    return (largest_frame(size) if spec.compressed else size) + CHECKSUM_BYTES


def largest_shard_file(spec: ArraySpec, shard_size: int) -> int:
    """Return the bytes that a file may take which has a chunk for each row of a shard, and an index."""
    return shard_size * largest_chunk(spec) + CHECKSUM_BYTES + index_bytes(shard_size)


def index_bytes(shard_size: int) -> int:
    """Return the bytes of a shard file's index, which ends the file."""
    return shard_size * _ENTRY + CHECKSUM_BYTES


def read_index(file: Readable, shard_size: int, largest: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the offsets and lengths of a shard file's chunks, ``[shard_size]`` each; `MISSING` is the length of none.

    Raises
    ------
    DamagedError
        The index does not match its checksum, points out of the file, or at chunks of more than ``largest`` bytes; or the file
        is longer than so many of these are.
    """
    size = index_bytes(shard_size)
    end, most = file.length - size, min(largest, file.length - size)
    raw = file.read(end, size) if end >= 0 else b""
    if len(raw) != size or google_crc32c.value(raw) != CRC32C_RESIDUE:
        raise DamagedError(f"{file.path}: the shard's index does not match its checksum")
    if end > shard_size * largest + CHECKSUM_BYTES:
        raise DamagedError(
            f"{file.path}: expected {shard_size} chunks of at most {largest:,} bytes, found {end:,} bytes of them"
        )
    index = np.frombuffer(raw, "<u8", shard_size * 2)
    offsets, lengths = index[0::2], index[1::2]
    if int(lengths.max()) > most:
        absent = (offsets == _ABSENT) & (lengths == _ABSENT)
        offsets, lengths = np.where(absent, 0, offsets), np.where(absent, MISSING, lengths)
    if int(lengths.max()) > most or int(offsets.max()) > end or int((offsets + lengths).max()) > end:
        outside = (offsets > end) | (lengths > most) | (offsets + lengths > end)
        local = int(np.argmax(outside))
        place = f"offset {offsets[local]}, {lengths[local]} bytes"
        raise DamagedError(f"{file.path}: the index places chunk {local} outside of the file, or makes it too long: {place}")
    return offsets, lengths


def decode_chunk(data: bytes, spec: ArraySpec, rows: int, path: str) -> NDArray[Any]:
    """Return the rows in a file that is one chunk.

    Raises
    ------
    DamagedError
        It does not decode to what its checksums say.
    """
    shape = (rows, *spec.row_shape)
    try:
        if spec.compressed:
            frame = data if spec.committed else check_plain(data, max(len(data) - CHECKSUM_BYTES, 0))
            decoded = decode_frame(frame, rows * spec.row_bytes)
        else:
            decoded = check_plain(data, rows * spec.row_bytes)
    except FrameError as error:
        raise DamagedError(f"{path}: damaged: {error}") from error
    return np.frombuffer(decoded, spec.numpy_dtype).reshape(shape)


@again
def read_chunk(path: str, spec: ArraySpec, rows: int, owner: int | None = None) -> NDArray[Any] | None:
    """Return the rows in a file that is one chunk; None if there is no such file. Raises as `decode_chunk` does."""
    try:
        file = DataFile(path, owner)
    except FileNotFoundError:
        return None
    return decode_chunk(file.whole(largest_file(spec, rows)), spec, rows, path)
