"""Rows of stores as they are encoded: whole shards file by file, others row by row. A `MapsSource`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import find_encoding
from labelstore.fetch import RowFetcher
from labelstore.pipelines.exchange.layout import PickedRows, WholeShard
from labelstore.pipelines.files import encode_file
from labelstore.pipelines.shard_check import sealed_files
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.store_files import StoreFiles, store_files
from labelstore.schema import IMAGE_SIZE, Status, StoreInfo
from labelstore.storage import open_source


@dataclass(frozen=True)
class StoreRows:
    """Stores of one encoding, of the same sizes; a part is a `WholeShard` or `PickedRows`."""

    stores: tuple[str, ...]

    def fill(self, rows: ShardRows, part: WholeShard | PickedRows) -> Iterator[int]:
        """See `MapsSource.fill`."""
        if isinstance(part, WholeShard):
            info, fetcher, files = open_store(self.stores[part.store])
            there = np.array(info.shard_rows(part.shard))
            found = sealed_files(files, info, part.shard)
            if rows.info.image_sizes and not info.image_sizes:
                none = np.full((len(there), *IMAGE_SIZE.row_shape), IMAGE_SIZE.fill, IMAGE_SIZE.numpy_dtype)
                found[IMAGE_SIZE.name] = encode_file(IMAGE_SIZE, none, rows.info.shard_size)
            rows.put_files(found, errors_of(fetcher, there))
        else:
            self._put_picked(rows, part)
        yield len(rows)

    def _put_picked(self, rows: ShardRows, part: PickedRows) -> None:
        of, numbers = np.array(part.stores), np.array(part.rows)
        arrays = {
            spec.name: np.full((len(numbers), *spec.row_shape), spec.fill, spec.numpy_dtype)
            for spec in find_encoding(rows.info.encoding, rows.info.encoding).arrays(rows.info)
        }
        errors, crc32 = np.full(len(numbers), "", object), np.zeros(len(numbers), np.uint32)
        sizes = np.zeros((len(numbers), 2), np.uint32)
        for store in np.unique(of).tolist():
            here = np.flatnonzero(of == store)
            _, fetcher, _ = open_store(self.stores[store])
            errors[here] = errors_of(fetcher, numbers[here])
            crc32[here] = fetcher.column("image_crc32", numbers[here])
            sizes[here] = sizes_of(fetcher, numbers[here])
            done = here[errors[here] == ""]
            for name, values in (fetcher.maps(numbers[done]) if len(done) else {}).items():
                arrays[name][done] = values
        rows.put(0, arrays, errors.tolist(), crc32.tolist(), sizes)


@functools.lru_cache(maxsize=64)
def open_store(location: str) -> tuple[StoreInfo, RowFetcher, StoreFiles]:
    """Open a store once a process."""
    source, info = open_source(location)
    return info, RowFetcher(source, info), store_files(location, links=True)


def errors_of(fetcher: RowFetcher, rows: NDArray[np.int64]) -> list[str]:
    """Return why rows have failed, '' where they have not."""
    status: Any = fetcher.status(rows)
    return [fetcher.error(row) if failed else "" for row, failed in zip(rows.tolist(), status == Status.FAILED, strict=True)]


def sizes_of(fetcher: RowFetcher, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return rows' image sizes ``[n, 2]``; zeros, which say that they are not known, out of a store that keeps none."""
    return fetcher.image_sizes(rows) if fetcher.info.image_sizes else np.zeros((len(rows), 2), np.uint32)
