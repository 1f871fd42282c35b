"""`merge` and `subset`: rows of stores into another one, as they are encoded; nothing is lost, and whole shards are copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, OptionError, StoreMismatchError
from labelstore.ids import ImageIds
from labelstore.pipelines.exchange.layout import Chosen, Layout, PickedRows, WholeShard, lay_out, picked
from labelstore.pipelines.exchange.places import whole_place
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.exchange.store_rows import StoreRows
from labelstore.pipelines.exchange.transfer import Transfer, transfer
from labelstore.pipelines.index import fit_targets
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import shard_size as usual_shard_size
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.summary import Summary
from labelstore.schema import Status, StoreInfo, index_arrays
from labelstore.storage import Source, open_source

_SHOWN = 3
_SAME = ("encoding", "spectral", "baseline", "num_classes", "top_k", "map_size", "exif", "decoder", "class_names", "class_ids")
"""What stores that are put together must have in common."""


@dataclass(frozen=True)
class _Opened:
    location: str
    source: Source
    info: StoreInfo

    def ids(self) -> ImageIds:
        return ImageIds(self.source.index_array(index_arrays(self.info)[0]), self.location)


def merge_stores(
    stores: Sequence[str],
    dest: str,
    resources: Resources,
    observer: Observer,
    *,
    shard_size: int | None = None,
    skip_duplicates: bool = False,
) -> Summary:
    """Put the rows of stores together in a new one.

    Parameters
    ----------
    shard_size
        Rows a shard. By default as the store with most rows has it.
    skip_duplicates
        Whether of an image that several stores have the first one's row is taken; else that is an error.

    Raises
    ------
    StoreMismatchError
        Stores of other sizes, encodings or annotators.
    ImagesError
        An image that two of them have.
    LabelStoreError
        As `transfer`.
    """
    observer.phase("looking at the stores")
    opened = [_open(location) for location in stores]
    if len({whole_place(location) for location in (*stores, dest)}) <= len(stores):
        raise OptionError("expected stores that are distinct, and another place for what they become")
    for other in opened[1:]:
        _require_alike(opened[0], other)
    rows = [_with_rows(each, observer) for each in opened]
    rows = _distinct(opened, rows, skip_duplicates)
    largest = max(opened, key=lambda each: each.info.num_images)
    return _put_together(opened, rows, dest, shard_size or largest.info.shard_size, resources, observer)


def subset_store(
    store: str,
    dest: str,
    selection: Selection,
    resources: Resources,
    observer: Observer,
    *,
    shard_size: int | None = None,
) -> Summary:
    """Put some rows of a store into a new one.

    Parameters
    ----------
    shard_size
        Rows a shard. By default as the store has it if that leaves whole shards, else by the number of rows.

    Raises
    ------
    OptionError, UnknownIdError
        As `Selection.rows`.
    LabelStoreError
        As `transfer`.
    """
    observer.phase("looking at the store")
    opened = _open(store)
    if whole_place(store) == whole_place(dest):
        raise OptionError(f"{dest}: expected another place than the store's")
    rows = np.intersect1d(selection.rows(opened.ids()), _with_rows(opened, observer))
    if not len(rows):
        raise OptionError(f"{store}: none of the chosen rows holds anything yet")
    size = shard_size or opened.info.shard_size
    chosen = [Chosen(opened.info, rows, opened.source.direct)]
    if shard_size is None and not any(isinstance(part, WholeShard) for part in lay_out(chosen, size).shards):
        size = usual_shard_size(len(rows))
    return _put_together([opened], [rows], dest, size, resources, observer)


def _put_together(
    opened: Sequence[_Opened],
    rows: Sequence[NDArray[np.int64]],
    dest: str,
    shard_size: int,
    resources: Resources,
    observer: Observer,
) -> Summary:
    chosen = [Chosen(each.info, some, each.source.direct) for each, some in zip(opened, rows, strict=True)]
    layout = lay_out(chosen, shard_size)
    info, ids, targets = _index(opened, chosen, layout, shard_size)
    source = StoreRows(tuple(whole_place(each.location) for each in opened))

    def part(shard: int) -> WholeShard | PickedRows:
        return layout.shards[shard]

    return transfer(Transfer(source, info, ids, targets, part), dest, resources, observer)


def _index(
    opened: Sequence[_Opened], chosen: Sequence[Chosen], layout: Layout, shard_size: int
) -> tuple[StoreInfo, NDArray[np.uint8], NDArray[np.int32]]:
    """Return what the new store says of itself, its ids and its targets."""
    first = opened[0].info
    width = max(each.info.id_bytes for each in opened)
    names, numbers = first.target_names, []
    for each in opened:
        fitted, names = fit_targets(each.source.index_array(index_arrays(each.info)[1]), each.info.target_names, names)
        numbers.append(fitted)
    all_ids = [each.source.index_array(index_arrays(each.info)[0]) for each in opened]
    ids = np.zeros((layout.extents[-1].stop, width), np.uint8)
    targets = np.full(len(ids), -1, np.int32)
    for place, shard in enumerate(layout.shards):
        part = picked(shard, chosen)
        of, rows = np.array(part.stores), np.array(part.rows)
        for store in np.unique(of).tolist():
            here = np.flatnonzero(of == store)
            ids[place * shard_size + here, : all_ids[store].shape[1]] = all_ids[store][rows[here]]
            targets[place * shard_size + here] = numbers[store][rows[here]]
    roots = {extent.images_root for extent in layout.extents}
    distances = {each.info.distance for each in opened}
    info = replace(
        first,
        num_rows=len(ids),
        shard_size=shard_size,
        id_bytes=width,
        ids_array="ids",
        target_names=names,
        extents=layout.extents if len(layout.extents) > 1 else (),
        images_root=roots.pop() if len(roots) == 1 else None,
        distance=first.distance if len(distances) == 1 else None,
        image_sizes=any(each.info.image_sizes for each in opened),
    )
    return info, ids, targets


def _open(location: str) -> _Opened:
    source, info = open_source(location)
    return _Opened(location, source, info)


def _with_rows(each: _Opened, observer: Observer) -> NDArray[np.int64]:
    """Return the rows that are done or failed; say how many are not."""
    status = each.source.status(np.arange(each.info.num_rows))
    pending = int((status == Status.PENDING).sum())
    if pending:
        observer.warning(f"{each.location}: {pending} rows are pending, and are left out")
    return np.flatnonzero((status == Status.DONE) | (status == Status.FAILED))


def _distinct(opened: Sequence[_Opened], rows: Sequence[NDArray[np.int64]], skip: bool) -> list[NDArray[np.int64]]:
    """Refuse images that two stores have, or leave them out of all but the first."""
    tables = [each.ids() for each in opened]
    kept = [rows[0]]
    for number in range(1, len(opened)):
        ids = [tables[number][row] for row in rows[number].tolist()]
        before = np.zeros(len(ids), bool)
        for earlier in range(number):
            there, known = tables[earlier].find(ids)
            twice = known & np.isin(there, kept[earlier])
            if twice.any() and not skip:
                names = ", ".join(ids[at] for at in np.flatnonzero(twice)[:_SHOWN].tolist())
                raise ImagesError(
                    f"{int(twice.sum())} images are in {opened[earlier].location} and in {opened[number].location}: {names}. "
                    "With --skip-duplicates the first store's are taken"
                )
            before |= twice
        kept.append(rows[number][~before])
    return kept


def _require_alike(one: _Opened, other: _Opened) -> None:
    differ = [key for key in _SAME if getattr(one.info, key) != getattr(other.info, key)]
    mine, theirs = one.info.annotator, other.info.annotator
    if (mine.full_name, mine.weights_sha256, mine.flip) != (theirs.full_name, theirs.weights_sha256, theirs.flip):
        differ.append("annotator")
    if differ:
        said = ", ".join(f"{key} {_shown(one.info, key)} and {_shown(other.info, key)}" for key in differ)
        raise StoreMismatchError(f"{one.location} and {other.location}: expected maps of one kind, got {said}")


def _shown(info: StoreInfo, key: str) -> str:
    value = info.annotator.full_name if key == "annotator" else str(getattr(info, key))
    return value if len(value) <= 60 else value[:60] + "..."
