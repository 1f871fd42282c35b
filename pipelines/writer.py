"""`LabelMapWriter`: label maps into a store, shard by shard."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelstore.credentials import safe_id
from labelstore.errors import ImagesError, OptionError
from labelstore.fetch import RowFetcher
from labelstore.ids import pack_ids
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.links import require_no_links
from labelstore.pipelines.lock import shared_lock, store_lock
from labelstore.pipelines.new_store import NOT_KNOWN, MapsRecord, info_of
from labelstore.pipelines.plan import ShardReport, pending_shards
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.sources.listing import id_problem
from labelstore.pipelines.store import ShardWriter, another_store, committed_shards, create_store
from labelstore.records import ImportRecord, ScoresRecord
from labelstore.schema import Status, StoreInfo
from labelstore.storage import open_source
from labelstore.units import FLOORS, SOFTMAX

_RECORDS = {
    None: None,
    "logits": ScoresRecord(),
    "probabilities": ScoresRecord(SOFTMAX, floor=FLOORS[SOFTMAX]),
}
"""What a store says of the scores that it is given."""
_MOST = int(np.iinfo(np.int32).max)
"""The highest label of an image."""


class LabelMapWriter:
    """Writes label maps into a store that exists, a shard at a time; `create` makes a new one.

    Processes, on one machine or several, may write different shards of one store at the same time, each with a writer of its
    own; threads may share one. A shard is all there or not there at all, however a process ends. A writer can be pickled.

    Parameters
    ----------
    store
        A path, or a URL such as ``s3://bucket/labels.zarr``.
    lock
        Whether `annotate`, `repair` and other commands that need a store for themselves find a local store busy while this
        writer is open. Only for who holds the store's lock already: False.

    Raises
    ------
    StoreNotFoundError, FormatError
        There is no store, or none that can be written.
    StoreBusyError
        A command that needs the store for itself is at work.

    Examples
    --------
    >>> ids = ["cats/1.jpg", "cats/2.jpg"]
    >>> with LabelMapWriter.create("labels.zarr", ids, num_classes=1000, map_size=(15, 15)) as writer:  # doctest: +SKIP
    ...     for shard in writer.pending():
    ...         with writer.shard(shard) as rows:
    ...             for row, image_id in enumerate(rows.ids):
    ...                 classes, scores = my_maps[image_id]  # [5, 15, 15] each
    ...                 rows.put_maps(row, classes[None], scores[None])
    """

    def __init__(self, store: str | Path, *, lock: bool = True) -> None:
        self.location = str(store)
        self._lock = lock
        self._open()

    def _open(self) -> None:
        self._held = contextlib.ExitStack()
        if self._lock:
            require_no_links(self.location)
        self._shards = ShardWriter(self.location)
        if self._lock:
            self._held.enter_context(shared_lock(self.location))

    @classmethod
    def create(
        cls,
        store: str | Path,
        ids: Sequence[str],
        *,
        num_classes: int,
        map_size: tuple[int, int],
        top_k: int = defaults.TOP_K,
        encoding: str = "topk",
        baseline: str | None = None,
        targets: ArrayLike | None = None,
        target_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        class_ids: Sequence[str] | None = None,
        annotator: str = NOT_KNOWN,
        images_root: str | None = None,
        exif: str = defaults.EXIF,
        shard_size: int | None = None,
        made_by: str = "LabelMapWriter",
        scores: str | None = None,
    ) -> LabelMapWriter:
        """Create a store in which every row is pending, and open it.

        Parameters
        ----------
        store
            Where nothing is yet.
        ids
            The images' ids, distinct: rows are in this order.
        num_classes, map_size, top_k
            C, ``(H, W)`` and K.
        encoding
            ``topk`` keeps the K best classes of every location, ``spectral`` (dense logits alone) smooth maps.
        baseline
            What classes that are not kept count as: ``zero``, the logit 0 (the default of ``topk``); ``absent_mean``, their
            mean logit (scores of listed classes must be relative to it already); ``absent_mass`` (that of ``spectral``).
        targets, target_names
            The images' own labels, int ``[N]``, -1 for none; and their names.
        class_names, class_ids
            The classes' names and stable ids.
        annotator
            What made the maps, in a word.
        images_root, exif, shard_size
            Where the images lie; whether they were turned upright (``apply``); rows a shard. All are recorded.
        made_by
            What the store says of where its maps come from.
        scores
            What is put: ``logits``; ``probabilities`` that sum to 1 over all classes, whose logarithm is kept (of a sigmoid's
            put ``np.log(p) - np.log1p(-p)`` as logits); None: logits, and what looks like probabilities is refused.

        Raises
        ------
        ImagesError
            Ids that cannot be kept, or twice the same; targets that do not fit.
        FormatError
            There is something else at ``store``; or sizes that no store has.
        OptionError
            Choices that do not go together.
        """
        if scores not in (None, "logits", "probabilities"):
            raise OptionError(f"scores: expected 'logits', 'probabilities' or None, got {scores!r}")
        if num_classes == 1:
            raise OptionError("num_classes: expected at least 2, got 1: the probability of a single class is always 1")
        labels = check_index(ids, targets)
        usual = "zero" if encoding == "topk" else None
        record = MapsRecord(
            num_classes,
            (int(map_size[0]), int(map_size[1])),
            top_k,
            EncodingChoice(encoding, baseline=baseline or usual),
            ImportRecord(made_by, "", scores=_RECORDS[scores]),
            annotator,
            class_names=_texts(class_names),
            class_ids=_texts(class_ids),
            target_names=_texts(target_names),
            images_root=images_root,
            exif=exif,
        )
        packed = pack_ids(ids)
        with store_lock(str(store)):
            create_store(str(store), info_of(record, len(ids), packed.shape[1], shard_size), packed, labels)
        return cls(store)

    @property
    def info(self) -> StoreInfo:
        """What the store says of itself."""
        return self._shards.info

    def pending(self) -> list[int]:
        """Return the numbers of the shards that are not committed, looked at now."""
        source, info = open_source(self.location)
        return pending_shards(info.num_shards, committed_shards(source, info, range(info.num_shards)))

    def ids(self, shard: int) -> list[str]:
        """Return the image ids of a shard's rows."""
        return self._shards.image_ids(shard)

    def shard(self, shard: int, ids_seal: int | None = None) -> ShardRows:
        """Return a shard's rows, to be filled and committed: ``with writer.shard(3) as rows: ...``.

        What is committed there already stays until the new rows are.

        Parameters
        ----------
        ids_seal
            Of the images that the rows are made for (`labelstore.storage.origin.ids_seal`). By default of those whose ids are
            there now.
        """
        if not 0 <= shard < self.info.num_shards:
            raise ImagesError(f"{self.location}: expected a shard in 0..{self.info.num_shards - 1}, got {shard}")
        return ShardRows(self._shards, shard, ids_seal)

    def stored_reports(self, shards: Sequence[int]) -> list[ShardReport]:
        """Return the reports of those of some shards that have a matching commit by now; looked at anew, those without one."""
        source, info, found = self._shards.source, self.info, []
        fetcher = RowFetcher(source, info)
        for shard in committed_shards(source, info, shards):
            rows = info.shard_rows(shard)
            failed = np.flatnonzero(fetcher.status(np.array(rows)) == Status.FAILED).tolist()
            ids = self.ids(shard) if failed else []
            failures = tuple((ids[at], fetcher.error(rows.start + at)) for at in failed)
            found.append(ShardReport(shard, len(rows), failures, {}))
        return found

    def close(self) -> None:
        """Give up the part of the store's lock; nothing is written by this."""
        self._held.close()

    def __enter__(self) -> LabelMapWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> tuple[str, bool]:
        return self.location, self._lock

    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.location, self._lock = state
        self._open()


def open_writer(store: str, identity: tuple[str | None, str] | None) -> LabelMapWriter:
    """Return the writer of a task, whose run holds the store's lock.

    Parameters
    ----------
    identity
        Of the store that the task is for; None: of whatever store is there.

    Raises
    ------
    StoreMismatchError
        Another store has been made at its place.
    """
    writer = LabelMapWriter(store, lock=False)
    if identity is not None and writer.info.identity != identity:
        raise another_store(store)
    return writer


def _texts(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def check_index(ids: Sequence[str], targets: ArrayLike | None) -> NDArray[np.int32]:
    """Return the labels of all rows, int32 ``[N]``, -1 for none.

    Raises
    ------
    ImagesError
        Ids that cannot be kept, or twice the same; targets that do not fit.
    """
    problems = (f"image id {safe_id(image_id)!r}: {problem}" for image_id in ids if (problem := id_problem(image_id)))
    for problem in problems:
        raise ImagesError(problem)
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ImagesError(f"image id {twice!r}: expected each once, got it twice")
    given = np.full(len(ids), -1) if targets is None else np.asarray(targets)
    if given.shape != (len(ids),):
        raise ImagesError(f"targets: expected one for each of {len(ids)} ids, got {list(given.shape)}")
    if given.size and (given.dtype.kind not in "iu" or given.min() < -1 or given.max() > _MOST):
        what = f"{given.min()} to {given.max()}" if given.dtype.kind in "iu" else str(given.dtype)
        raise ImagesError(f"targets: expected integers from -1 (none) to {_MOST:,}, got {what}")
    return given.astype(np.int32)
