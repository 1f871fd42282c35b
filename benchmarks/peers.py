"""Other libraries on our stores, to measure ours against, and the floor: what no way to the labels can do without."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore
import zarr
import zstandard
from maps import CLASSES
from numpy.typing import NDArray

from labelstore import LabelMap
from labelstore.boxes import check_boxes
from labelstore.encodings import find_encoding
from labelstore.pooling import pool_maps
from labelstore.schema import ArraySpec, StoreInfo
from labelstore.storage.chunks import DataFile, largest_chunk, read_index
from labelstore.storage.frames import decode_frames
from labelstore.threads import in_parts

_INDEX_CACHE = 8 << 20
"""Bytes that TensorStore may keep: all shard indexes of these stores, and few of their chunks."""


class OtherReader(ABC):
    """Another library reads the store's arrays; the labels are pooled from them by our NumPy code."""

    def __init__(self, info: StoreInfo) -> None:
        self._info, self._encoding = info, find_encoding(info.encoding, "store")
        self.names = [spec.name for spec in self._encoding.arrays(info)]

    @abstractmethod
    def arrays(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Rows of the arrays that keep the maps."""

    def soft_labels(self, rows: NDArray[np.int64], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        checked = check_boxes(boxes, len(rows))
        return pool_maps(self._encoding, self.arrays(rows), checked, self._info, np.float32(1), None)


class ZarrPython(OtherReader):
    """zarr-python, its settings as they come."""

    def __init__(self, store: Path, info: StoreInfo) -> None:
        super().__init__(info)
        group = zarr.open_group(store, mode="r")
        self._arrays: dict[str, Any] = {name: group[name] for name in self.names}

    def arrays(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {name: array.oindex[rows] for name, array in self._arrays.items()}


class TensorStore(OtherReader):
    """TensorStore: a batch in one read of each array, all arrays at once, and its shard indexes kept in memory."""

    def __init__(self, store: Path, info: StoreInfo, threads: int) -> None:
        super().__init__(info)
        context = tensorstore.Context(
            {
                "data_copy_concurrency": {"limit": threads},
                "file_io_concurrency": {"limit": threads},
                "cache_pool": {"total_bytes_limit": _INDEX_CACHE},
            }
        )
        self._arrays = {name: _open_array(store / name, context) for name in self.names}

    def arrays(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        reads = {name: array[rows].read() for name, array in self._arrays.items()}
        return {name: np.asarray(read.result()) for name, read in reads.items()}


def _open_array(folder: Path, context: tensorstore.Context) -> Any:
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "recheck_cached_data": "open",
        "recheck_cached_metadata": "open",
    }
    return tensorstore.open(spec, context=context, read=True).result()


class Places(NamedTuple):
    """Where the chunks of some rows of one array lie: arguments of `os.pread`, and the bytes that each chunk decodes to."""

    fds: Sequence[int]
    lengths: Sequence[int]
    offsets: Sequence[int]
    size: int


class Entries(NamedTuple):
    """What is added up for a batch: ``values [B*K*H*W]`` to ``places`` among the batch's logits ``[size]``."""

    places: NDArray[np.intp]
    values: NDArray[np.float32]
    size: int


class Floor:
    """The same chunks, bare: places known beforehand, nothing checked but what zstd checks, no labels made."""

    def __init__(self, store: Path, info: StoreInfo) -> None:
        self._shard_size = info.shard_size
        self._specs = [spec for spec in find_encoding(info.encoding, "store").arrays(info) if spec.by_row]
        self._files = {spec.name: self._open(store, spec, info.num_shards) for spec in self._specs}
        self._decompress: Callable[[bytes], bytes] = zstandard.ZstdDecompressor().decompress

    def _open(self, store: Path, spec: ArraySpec, shards: int) -> list[tuple[DataFile, NDArray[Any], NDArray[Any]]]:
        files = [DataFile(f"{store}/{spec.name}/{spec.file_name(shard)}") for shard in range(shards)]
        return [(file, *read_index(file, self._shard_size, largest_chunk(spec))) for file in files]

    def places(self, rows: NDArray[np.int64]) -> list[Places]:
        """Of each array, in the order of the rows."""
        return [self._places_of(spec, rows) for spec in self._specs]

    def _places_of(self, spec: ArraySpec, rows: NDArray[np.int64]) -> Places:
        files = self._files[spec.name]
        found = []
        for row in rows.tolist():
            file, offsets, lengths = files[row // self._shard_size]
            found.append((file.fd, int(lengths[row % self._shard_size]), int(offsets[row % self._shard_size])))
        return Places(*map(list, zip(*found, strict=True)), size=spec.row_bytes)

    def decode_loop(self, places: Sequence[Places]) -> list[list[bytes]]:
        """One thread."""
        return [list(map(self._decompress, map(os.pread, mine.fds, mine.lengths, mine.offsets))) for mine in places]

    def decode_threads(self, places: Sequence[Places], threads: int) -> None:
        """Several threads, each its part of a batch's chunks in two calls."""
        frames = [(list(map(os.pread, mine.fds, mine.lengths, mine.offsets)), mine.size) for mine in places]
        in_parts(lambda part: _decode_part(frames, part), len(frames[0][0]), threads)

    def decode_row_by_row(self, places: Sequence[Places]) -> None:
        """One thread, a row's chunks together, as a loop over single rows would."""
        decompress, pread = self._decompress, os.pread
        for row in zip(*(zip(mine.fds, mine.lengths, mine.offsets, strict=True) for mine in places), strict=True):
            for chunk in row:
                decompress(pread(*chunk))


def _decode_part(frames: Sequence[tuple[list[bytes], int]], part: slice) -> None:
    for mine, size in frames:
        decode_frames(mine[part], size, memoryview(bytearray((part.stop - part.start) * size)))


def entries_of(maps: LabelMap) -> Entries:
    """The scatter-add of a batch. The values do not matter to its speed."""
    start = (np.arange(len(maps.classes)) * CLASSES)[:, None, None, None]
    return Entries((start + maps.classes).astype(np.intp).ravel(), maps.scores.ravel(), len(maps.classes) * CLASSES)


def scatter_add(entries: Entries) -> NDArray[np.float32]:
    logits = np.zeros(entries.size, np.float32)
    np.add.at(logits, entries.places, entries.values)
    return logits
