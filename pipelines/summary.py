"""What a run comes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.agreement import Agreement, label_agreement
from labelstore.class_map import ClassMap
from labelstore.reader import LabelMapReader
from labelstore.schema import Status, StoreInfo
from labelstore.summary import StoreCounts, count_rows, failures_of

LISTED_FAILURES = 1000


@dataclass(frozen=True)
class Summary:
    """What a run made. ``failures`` are (image id, reason) of the store's failed rows, the first 1,000 of them;
    ``example_id`` is an image that is done, None if none is; ``agreement`` says how often the
    labels of this run's whole images are their folders'."""

    store: str
    info: StoreInfo
    counts: StoreCounts
    new_rows: int
    seconds: float
    failures: tuple[tuple[str, str], ...]
    example_id: str | None
    agreement: Agreement | None = None


def summarise(
    location: str,
    info: StoreInfo,
    new_rows: int,
    seconds: float,
    made: NDArray[np.int64] | None = None,
    class_map: ClassMap | None = None,
) -> Summary:
    """Look at the store after a run; ``made`` are its rows, ``class_map`` is for the agreement: see `label_agreement`."""
    reader = LabelMapReader(location, compiled=False)
    done = reader.status() == Status.DONE
    example = reader.ids[int(done.argmax())] if done.any() else None
    counts = count_rows(reader, location)
    agreement = label_agreement(reader, made, class_map=class_map) if made is not None else None
    return Summary(location, info, counts, new_rows, seconds, failures_of(reader, LISTED_FAILURES), example, agreement)
