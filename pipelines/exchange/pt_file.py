"""One tensor as `torch.save` writes it, read as `torch.load(weights_only=True)` reads it, several times faster.

A file is a Zip archive of a pickle, which says what the tensor is, and its bytes. Who knows what a pickle says needs not run
it: pickles are learned. One that is met for the first time goes through torch, unpickling no more than tensors; if torch writes
the same pickle, byte for byte, for a tensor of that kind, files with it are read directly from then on.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import MapsError
from labelstore.schema import MAX_MAP_VALUES

MOST_BYTES = 2 * 8 * MAX_MAP_VALUES + 2**20
"""Of a file: the largest map that a store can hold, in float64."""
_MOST_KNOWN, _MOST_ENTRIES = 64, 64
_END, _ENTRY, _LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_STORED = 0
_DEVICE = re.compile(rb"X(....)(cuda:\d{1,2}|cuda)(?=q)", re.DOTALL)
_CPU = b"X\x03\x00\x00\x00cpu"


@dataclass(frozen=True)
class _Layout:
    """What a pickle says: an array of a dtype, shape and strides (in values), over all of the archive's bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    num_bytes: int

    def array(self, data: memoryview | bytes) -> NDArray[Any]:
        strides = tuple(step * self.dtype.itemsize for step in self.strides)
        return np.ndarray(self.shape, self.dtype, data, strides=strides)


class PtReader:
    """Reads such files; learns their pickles. For one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Layout] = {}

    def read(self, path: str) -> NDArray[Any]:
        """Return a file's tensor, in its own dtype (bfloat16: as float32); it may be read-only.

        Raises
        ------
        MapsError
            Says what is wrong with the file, without naming it.
        """
        data = _bytes_of(path)
        try:
            records = _records(data)
        except (struct.error, ValueError, IndexError):
            records = None
        if records is None:
            return _array(_load(data))
        layout, values = self._known.get(bytes(records.get("data.pkl", b""))), records.get("data/0", b"")
        little = records.get("byteorder", b"little") == b"little"
        if layout is not None and little and len(values) == layout.num_bytes:
            return layout.array(values)
        tensor = _load(data)
        self._learn(records, tensor)
        return _array(tensor)

    def _learn(self, records: dict[str, memoryview], tensor: torch.Tensor) -> None:
        """Keep a pickle, if it is what torch writes for this kind of tensor, alone and whole."""
        storage = tensor.untyped_storage()
        if len(self._known) >= _MOST_KNOWN or tensor.dtype == torch.bfloat16 or tensor.storage_offset():
            return
        if storage.nbytes() != len(records.get("data/0", b"")) or tensor.requires_grad:
            return
        alike = torch.empty(0, dtype=tensor.dtype).set_(
            torch.UntypedStorage(storage.nbytes()), 0, tensor.shape, tensor.stride()
        )
        written = io.BytesIO()
        torch.save(alike, written)
        found = bytes(records["data.pkl"])
        if _DEVICE.sub(_to_cpu, found) == bytes(_records(written.getvalue())["data.pkl"]):
            dtype = _array(torch.empty(0, dtype=tensor.dtype)).dtype
            self._known[found] = _Layout(dtype, tuple(tensor.shape), tensor.stride(), storage.nbytes())


def _bytes_of(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            data = os.read(descriptor, min(os.fstat(descriptor).st_size, MOST_BYTES) + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MapsError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise MapsError("expected a tensor as torch.save writes it, got an empty file")
    if len(data) > MOST_BYTES:
        raise MapsError(f"expected a label map, got a file of more than {MOST_BYTES:,} bytes")
    return data


def _records(data: bytes) -> dict[str, memoryview]:
    """Return the files of an archive, by their names below its folder: whole, as they are, and with the right checksum.

    Raises
    ------
    MapsError
        A checksum that is wrong.
    ValueError, struct.error, IndexError
        It is not an archive as torch.save writes it.
    """
    view = memoryview(data)
    signature, _, _, _, count, _, start, comment = _END.unpack(view[-_END.size :])
    if signature != b"PK\5\6" or comment or not 0 < count <= _MOST_ENTRIES:
        raise ValueError("not an archive without a comment")
    found: dict[str, memoryview] = {}
    for _ in range(count):
        mark, *_, method, _, _, crc32, packed, size, named, extra, note, _, _, _, local = _ENTRY.unpack_from(view, start)
        name = data[start + _ENTRY.size : start + _ENTRY.size + named].partition(b"/")[2].decode()
        local_mark, *_, name_there, extra_there = _LOCAL.unpack_from(view, local)
        first = local + _LOCAL.size + name_there + extra_there
        part = view[first : first + size]
        if mark != b"PK\1\2" or local_mark != b"PK\3\4" or method != _STORED or packed != size:
            raise ValueError("not as it is stored")
        if len(part) != size or name in found:
            raise ValueError("records that overlap or are cut off")
        if zlib.crc32(part) != crc32:
            raise MapsError(f"damaged: the checksum of its record {name!r} is wrong")
        found[name] = part
        start += _ENTRY.size + named + extra + note
    return found


def _load(data: bytes) -> torch.Tensor:
    """Read a tensor by torch, which unpickles nothing but tensors and plain values."""
    if data.startswith(b"PK"):
        _check_archive(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MapsError(
            "expected a tensor as torch.save writes it, got a pickle that asks for more, or none: it is not loaded "
            "(torch.load with weights_only=True)"
        ) from error
    except Exception as error:  # whatever torch raises for files that are cut off, or none of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise MapsError(f"expected a tensor as torch.save writes it, got what torch cannot load: {reason}") from error
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
        raise MapsError(f"expected a tensor, got {_kind(found)}")
    return found.detach()


def _check_archive(data: bytes) -> None:
    """Refuse an archive with a record that is damaged, which torch does not look at; or of few bytes that unpack to many, which
    torch.save does not write."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > len(data):
                raise MapsError(f"expected an archive that is not packed, got one of {len(data):,} bytes that claims {size:,}")
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise MapsError(f"expected an archive as torch.save writes it, got what is damaged: {error}") from error
    if bad is not None:
        raise MapsError(f"damaged: the checksum of its record {bad!r} is wrong")


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    try:
        found: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError) as error:
        raise MapsError(f"expected a tensor of plain numbers, got {tensor.dtype}") from error
    return found


def _to_cpu(_: re.Match[bytes]) -> bytes:
    return _CPU


def _kind(found: object) -> str:
    return f"a {found.layout} one" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
