"""The files that no shard's task writes: image ids and targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.pipelines.files import encode_file
from labelstore.pipelines.sink import Sink
from labelstore.schema import StoreInfo, index_arrays

_SHARDS_AT_ONCE = 256


def index_columns(info: StoreInfo, ids: NDArray[np.uint8], targets: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """Return ids and targets by the names of their arrays."""
    ids_array, targets_array = index_arrays(info)
    return {ids_array.name: ids, targets_array.name: targets}


def write_index(
    sink: Sink, info: StoreInfo, columns: Mapping[str, NDArray[Any]], shards: Iterable[int], first_row: int = 0
) -> None:
    """Write some shards of the arrays, durably.

    Parameters
    ----------
    columns
        ``[n, *row_shape]`` by array: the rows from ``first_row`` on.
    """
    specs = [spec for spec in index_arrays(info) if spec.name in columns]
    for some in _chunked(shards):
        files = {}
        for shard in some:
            rows = info.shard_rows(shard)
            here = slice(rows.start - first_row, rows.stop - first_row)
            for spec in specs:
                key = f"{spec.name}/{spec.file_name(shard)}"
                files[key] = encode_file(spec, columns[spec.name][here], info.shard_size)
        sink.put(files)
        sink.flush(files)


def fit_targets(
    targets: NDArray[np.int32], names: Sequence[str] | None, known: Sequence[str] | None
) -> tuple[NDArray[np.int32], tuple[str, ...] | None]:
    """Number labels as a store does, and return all names that it then has.

    Labels with names keep the store's numbers, and new names come behind. Where only one of the two has names they cannot be
    compared, and these images have no label (-1).
    """
    if names is None and known is None:
        return targets, None
    if names is None or known is None:
        return np.full_like(targets, -1), None if known is None else tuple(known)
    numbers = {name: number for number, name in enumerate(known)}
    for name in names:
        numbers.setdefault(name, len(numbers))
    table = np.array([*(numbers[name] for name in names), -1], np.int32)
    return table[targets], tuple(numbers)


def _chunked(shards: Iterable[int]) -> Iterator[list[int]]:
    waiting = iter(shards)
    while some := list(itertools.islice(waiting, _SHARDS_AT_ONCE)):
        yield some
