"""`convert`: a store's maps into a new store of another encoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import OptionError
from labelstore.fetch import RowFetcher
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.distance import label_distances
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.exchange.dense import dense_logits
from labelstore.pipelines.exchange.listed import among_failed
from labelstore.pipelines.exchange.places import whole_place
from labelstore.pipelines.exchange.store_rows import errors_of, open_store, sizes_of
from labelstore.pipelines.exchange.transfer import Transfer, transfer
from labelstore.pipelines.new_store import MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.probe import spread
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.summary import Summary
from labelstore.records import ImportRecord, LabelDistance
from labelstore.schema import Status, StoreInfo, index_arrays
from labelstore.storage import open_source

_AT_ONCE, _MEASURED = 16, 64
_DIGITS = 6


@dataclass(frozen=True)
class Reencoded:
    """A store whose maps are encoded anew; a part is the same shard's number. A `MapsSource`."""

    store: str

    def fill(self, rows: ShardRows, part: int) -> Iterator[int]:
        """See `MapsSource.fill`."""
        info, fetcher, _ = open_store(self.store)
        there = np.array(info.shard_rows(part))
        errors = errors_of(fetcher, there)
        crc32 = fetcher.column("image_crc32", there).tolist()
        sizes = sizes_of(fetcher, there)
        for start in range(0, len(there), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            done = there[some][[not error for error in errors[some]]]
            arrays = encode(torch.from_numpy(dense_of(fetcher, done)), rows.info) if len(done) else {}
            rows.put(start, among_failed(arrays, errors[some]), errors[some], crc32[some], sizes[some])
            yield len(there[some])


def convert_store(
    store: str, dest: str, choice: EncodingChoice, top_k: int | None, resources: Resources, observer: Observer
) -> Summary:
    """Make a store of another encoding of a store's maps; the new one records how far its labels are from the old one's.

    Parameters
    ----------
    choice
        The new encoding.
    top_k
        K of the new store; None: as the old one.

    Raises
    ------
    OptionError
        Choices that do not go together, or with this store; rows that are pending.
    LabelStoreError
        As `transfer`.
    """
    observer.phase("looking at the store")
    place = whole_place(store)
    if place == whole_place(dest):
        raise OptionError(f"{dest}: expected another place than the store's")
    source, before = open_source(store)
    status = source.status(np.arange(before.num_rows))
    pending = int((status == Status.PENDING).sum())
    if pending:
        raise OptionError(
            f"{store}: {pending} rows are pending; make them first, or take those that are done: labelstore subset {store} "
            "DEST --match '*'"
        )
    ids, targets = (source.index_array(spec) for spec in index_arrays(before))
    after = _new_info(before, place, choice, top_k)
    done = np.flatnonzero(status == Status.DONE)
    if len(done):
        observer.phase("measuring the distance that this adds")
        sample = done[spread(len(done), _MEASURED)]
        distance = added_distance(RowFetcher(source, before), sample, after)
        after = replace(after, imported=ImportRecord("store", place, distance=distance))
        observer.note(
            f"distance that this adds to labels of crops: L1 {distance.l1:.3f}, KL {distance.kl:.3f}, same best class for "
            f"{distance.agreement:.0%} ({distance.images} images)"
        )
    return transfer(Transfer(Reencoded(place), after, ids, targets, int), dest, resources, observer)


def added_distance(fetcher: RowFetcher, rows: NDArray[np.int64], after: StoreInfo) -> LabelDistance:
    """Return how far soft labels of crops out of a new store are from those of the one it is made of, over some rows."""
    found = []
    for row in rows.tolist():
        dense = dense_of(fetcher, np.array([row]))
        found.append(label_distances(dense, encode(torch.from_numpy(dense), after), after))
    l1, kl, agreement, best = np.concatenate(found, axis=1).mean(axis=1).round(_DIGITS).tolist()
    return LabelDistance(l1, kl, agreement, len(rows), best)


def dense_of(fetcher: RowFetcher, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the dense logits of rows that are done."""
    return dense_logits(fetcher.maps(rows), fetcher.info)


def _new_info(before: StoreInfo, place: str, choice: EncodingChoice, top_k: int | None) -> StoreInfo:
    record = MapsRecord(
        before.num_classes,
        before.map_size,
        top_k or before.top_k,
        choice,
        ImportRecord("store", place),
        before.annotator,
        class_names=before.class_names,
        class_ids=before.class_ids,
        target_names=before.target_names,
        images_root=before.images_root,
        exif=before.exif,
    )
    made = info_of(record, before.num_rows, before.id_bytes, before.shard_size)
    return replace(made, extents=before.extents, decoder=before.decoder, image_sizes=before.image_sizes)
