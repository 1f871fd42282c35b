"""The files that no shard's task writes: image ids and targets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from labelstore.pipelines.files import encode_file
from labelstore.pipelines.sink import Sink
from labelstore.schema import StoreInfo, index_arrays

_SHARDS_AT_ONCE = 256


def write_index(
    sink: Sink,
    info: StoreInfo,
    ids: NDArray[np.uint8],
    targets: NDArray[np.int32],
    shards: Iterable[int],
    first_row: int = 0,
) -> None:
    """Write the ids and targets of some shards, durably.

    Parameters
    ----------
    ids, targets
        uint8 ``[n, L]`` and int32 ``[n]``: of the rows from ``first_row`` on.
    """
    for some in _chunked(shards):
        files = {}
        for shard in some:
            rows = info.shard_rows(shard)
            here = slice(rows.start - first_row, rows.stop - first_row)
            for spec, values in zip(index_arrays(info), (ids, targets), strict=True):
                files[f"{spec.name}/{spec.file_name(shard)}"] = encode_file(spec, values[here], info.shard_size)
        sink.put(files)
        sink.flush(files)


def _chunked(shards: Iterable[int]) -> Iterator[list[int]]:
    waiting = iter(shards)
    while some := list(itertools.islice(waiting, _SHARDS_AT_ONCE)):
        yield some
