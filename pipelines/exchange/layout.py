"""How rows of stores come to lie in another one: whole shards as they are, then what is left over. Pure; no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.records import Extent
from labelstore.schema import StoreInfo


@dataclass(frozen=True)
class Chosen:
    """The rows that are taken of a store, in order; ``whole``: its shards can be taken as they are."""

    info: StoreInfo
    rows: NDArray[np.int64]
    whole: bool = True


@dataclass(frozen=True)
class WholeShard:
    """A shard of one of the stores."""

    store: int
    shard: int


@dataclass(frozen=True)
class PickedRows:
    """Rows of the stores, to be put together: which store, and which of its rows, each ``[n]``."""

    stores: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """A new store's shards: where the rows of each come from, and the extents that they make up."""

    shards: list[WholeShard | PickedRows]
    extents: tuple[Extent, ...]


def lay_out(chosen: Sequence[Chosen], shard_size: int) -> Layout:
    """Lay out rows of stores in shards of so many rows.

    A shard of which all rows are taken comes first, as it is, if its store's are of that size; all other rows are put together
    behind, in the order of stores and rows.
    """
    whole = [WholeShard(store, shard) for store, each in enumerate(chosen) for shard in _whole_shards(each, shard_size)]
    left = [(store, row) for store, each in enumerate(chosen) for row in _left_rows(each, shard_size).tolist()]
    shards: list[WholeShard | PickedRows] = list(whole)
    extents: list[Extent] = []
    for place, each in enumerate(whole):
        rows = chosen[each.store].info.shard_rows(each.shard)
        _add(extents, place * shard_size, len(rows), _root(chosen, each.store, rows.start))
    for run in _runs(chosen, left):
        for start in range(0, len(run), shard_size):
            part = run[start : start + shard_size]
            _add(extents, len(shards) * shard_size, len(part), _root(chosen, *part[0]))
            stores, rows_of = zip(*part, strict=True)
            shards.append(PickedRows(stores, rows_of))
    return Layout(shards, tuple(extents))


def picked(part: WholeShard | PickedRows, chosen: Sequence[Chosen]) -> PickedRows:
    """Return a shard's rows, one by one."""
    if isinstance(part, PickedRows):
        return part
    rows = tuple(chosen[part.store].info.shard_rows(part.shard))
    return PickedRows((part.store,) * len(rows), rows)


def _whole_shards(each: Chosen, shard_size: int) -> list[int]:
    if not each.whole or each.info.shard_size != shard_size:
        return []
    counts = np.bincount(each.rows // shard_size, minlength=each.info.num_shards)
    return [shard for shard in np.flatnonzero(counts).tolist() if counts[shard] == len(each.info.shard_rows(shard))]


def _left_rows(each: Chosen, shard_size: int) -> NDArray[np.int64]:
    return each.rows[~np.isin(each.rows // each.info.shard_size, _whole_shards(each, shard_size))]


def _runs(chosen: Sequence[Chosen], left: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield rows in runs whose images lay at one place."""
    run: list[tuple[int, int]] = []
    for store, row in left:
        if run and _root(chosen, *run[-1]) != _root(chosen, store, row):
            yield run
            run = []
        run.append((store, row))
    if run:
        yield run


def _root(chosen: Sequence[Chosen], store: int, row: int) -> str | None:
    return chosen[store].info.extent_of(row).images_root


def _add(extents: list[Extent], start: int, count: int, root: str | None) -> None:
    """Add rows behind the last extent, or to it where they go on with it."""
    if extents and extents[-1].stop == start and extents[-1].images_root == root:
        extents[-1] = Extent(extents[-1].start, start + count, root)
    else:
        extents.append(Extent(start, start + count, root))
