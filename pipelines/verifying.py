"""`verify`: every byte of a store against its checksum, every value against what it may be."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, FormatError, RunError, StoreNotFoundError, UnfinishedStoreError
from labelstore.pipelines.left_overs import Kind, sort_files
from labelstore.pipelines.links import require_no_links
from labelstore.pipelines.lock import is_locked
from labelstore.pipelines.metadata import COPY, metadata_problems, read_attributes
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.shard_check import ShardCheck, check_shard
from labelstore.pipelines.store_files import StoreFiles, UnreadableFileError, store_files
from labelstore.schema import ArraySpec, StoreInfo, index_arrays
from labelstore.storage import open_source, parse_group, store_arrays
from labelstore.storage.chunks import decode_chunk, largest_file
from labelstore.storage.documents import MOST_BYTES
from labelstore.storage.table import in_memory
from labelstore.threads import usable_cores

_ROWS_A_TASK = 4096
_FEW_SHARDS, _MOST_LOST = 1 << 16, 100
"""Of a store of more shards than a few, one in so many files of ids must be there."""
_MANY_ROWS, _MOST_WORKERS = 200_000, 8


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: the file, what is the matter with it, and the shard, row and image id where they are known."""

    file: str
    message: str
    shard: int | None = None
    row: int | None = None
    image_id: str | None = None


@dataclass
class Verification:
    """What is found in a store. ``damaged`` are shards whose rows cannot be trusted, ``lost`` the shards whose ids or targets
    cannot, by array; ``left_over`` are files that the next run removes, ``strangers`` those that are no store's. Of what is
    ``unreadable`` nothing is known: the disk fails at these files."""

    store: str
    info: StoreInfo
    rows: Counter[str] = field(default_factory=Counter)
    committed: int = 0
    problems: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    lost: dict[str, set[int]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    metadata: bool = False
    """Whether files of metadata are damaged."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong and every row is made."""
        return not self.problems and not self.unreadable and not self.rows["pending"]

    def lose(self, spec: ArraySpec, shard: int, problem: str, row: int | None = None, image_id: str | None = None) -> None:
        """Note that a shard's ids or targets cannot be trusted."""
        self.problems.append(Problem(f"{spec.name}/{spec.file_name(shard)}", problem, shard, row, image_id))
        self.lost.setdefault(spec.name, set()).add(shard)


def verify_store(
    location: str, workers: int | None, observer: Observer, *, alone: bool = False, links: bool = False
) -> Verification:
    """Check a store.

    Parameters
    ----------
    alone
        Whether nobody else can be writing to it: the caller holds its lock.
    links
        Whether to look behind links as well.
    workers
        Processes that check shards at the same time; 1: this one; None: by the store's size and the cores.

    Raises
    ------
    StoreNotFoundError, FormatError
        There is no store, or nothing that says what it is; or a part of it is behind a link.
    CannotReadError
        Rights are missing, or a server does not answer.
    StoreTooLargeError
    """
    if not links:
        require_no_links(location)
    files = store_files(location, links)
    attributes, info = store_attributes(files, location)
    found = Verification(location, info)
    observer.plan(info.num_images, 0)
    problems = metadata_problems(files, attributes, info)
    found.problems.extend(Problem(key, problem) for key, problem in problems)
    found.metadata = bool(problems)
    if not found.metadata:
        _require_our_files(location)
    ids = _check_index(files, found)
    _check_shards(files, found, ids, workers or _usual_workers(info), observer)
    _check_strays(files, found, running=not alone and is_locked(location))
    return found


def store_attributes(files: StoreFiles, location: str) -> tuple[dict[str, Any], StoreInfo]:
    """Return a store's attributes, from their copy if need be, and what they say.

    Raises
    ------
    StoreNotFoundError, FormatError
        There is no store, or nothing that says what it is.
    """
    attributes = read_attributes(files, location)
    if attributes is None:
        _say_why(files, location)
        raise FormatError(f"{location}: changed while it was looked at; try again")
    return attributes, parse_group({"node_type": "group", "attributes": attributes}, location)


def _say_why(files: StoreFiles, location: str) -> None:
    """Raise what a reader does; where metadata are lost, both copies of them, say that."""
    try:
        open_source(location)
    except (UnfinishedStoreError, StoreNotFoundError):
        raise
    except (FormatError, DamagedError) as error:
        if files.read(COPY, MOST_BYTES) is None:
            raise
        raise FormatError(f"{error}; the copy in {COPY} cannot be used either, so the store cannot be mended") from error


def _require_our_files(location: str) -> None:
    """Refuse stores of other programs that have other files: there is nothing here that knows them."""
    source, info = open_source(location)
    specs = store_arrays(info)
    if not source.direct or any(source.file_key(spec, 0) != f"{spec.name}/{spec.file_name(0)}" for spec in specs):
        raise FormatError(
            f"{location}: expected the codecs and the names of files of docs/format.md, found others; this store can be read, "
            "but neither verified nor repaired"
        )


def _check_strays(files: StoreFiles, found: Verification, running: bool) -> None:
    """``running``: what looks left over may be what a run is writing at the moment."""
    kinds = sort_files(files.entries(), found.info)
    found.left_over = [] if running else [entry.name for entry in kinds[Kind.LEFT_OVER]]
    found.strangers = [entry.name for entry in kinds[Kind.STRANGER]]
    found.problems.extend(Problem(key, "left over by a run that was cut off") for key in found.left_over)
    found.problems.extend(Problem(key, _no_file_of_ours(kind)) for key, kind in kinds[Kind.STRANGER])


def _no_file_of_ours(kind: str) -> str:
    what = "" if kind in ("file", "folder") else f"a {kind}, "
    return f"{what}no file of a label store"


def _check_index(files: StoreFiles, found: Verification) -> NDArray[np.bytes_]:
    """Check ids and targets; return the ids by row, empty where they are lost."""
    info = found.info
    ids, targets = index_arrays(info)
    _require_index(files, ids, info, found.store)
    with in_memory(info, found.store):
        matrix = np.zeros((info.num_rows, info.id_bytes), np.uint8)
    for spec in (ids, targets):
        for shard in range(info.num_shards):
            rows = info.shard_rows(shard)
            values = _index_rows(files, spec, shard, info, found)
            if values is None:
                continue
            if spec is ids:
                matrix[rows.start : rows.stop] = values
            wrong = _wrong_value(values, spec, info)
            if wrong is not None:
                found.lose(spec, shard, wrong[1], rows.start + wrong[0])
    texts: NDArray[np.bytes_] = np.ascontiguousarray(matrix).view(f"S{info.id_bytes}")[:, 0]
    _check_distinct(texts, ids, found)
    return texts


def right_index(files: StoreFiles, spec: ArraySpec, shard: int, info: StoreInfo) -> bool:
    """Whether a shard's ids, or targets, are there and such as a store has."""
    values = _index_rows(files, spec, shard, info, Verification("", info))
    return values is not None and _wrong_value(values, spec, info) is None


def _wrong_value(values: NDArray[Any], spec: ArraySpec, info: StoreInfo) -> tuple[int, str] | None:
    return _wrong_target(values, info) if spec.name == "targets" else _wrong_id(values)


def _require_index(files: StoreFiles, ids: ArraySpec, info: StoreInfo, where: str) -> None:
    """Refuse to look for the files of billions of rows that there are in attributes alone."""
    if info.num_shards <= _FEW_SHARDS:
        return
    there = sum(entry.name.startswith(f"{ids.name}/") for entry in files.entries())
    if there * _MOST_LOST < info.num_shards:
        raise FormatError(
            f"{where}: expected {info.num_shards:,} files of ids, one a shard, found {there:,}: too few to be a store that is "
            "damaged"
        )


def _index_rows(files: StoreFiles, spec: ArraySpec, shard: int, info: StoreInfo, found: Verification) -> NDArray[Any] | None:
    key = f"{spec.name}/{spec.file_name(shard)}"
    try:
        data = files.read(key, largest_file(spec, info.shard_size))
        if data is None:
            raise DamagedError(f"{key}: missing")
        values = decode_chunk(data, spec, info.shard_size, key)[: len(info.shard_rows(shard))]
    except OSError as error:
        found.lose(spec, shard, str(error).removeprefix(f"{key}: "))
        return None
    except UnreadableFileError as error:
        found.unreadable.append(Problem(key, str(error), shard))
        return None
    return values


def _wrong_id(values: NDArray[np.uint8]) -> tuple[int, str] | None:
    """Return the first bad id's place, and what is wrong with it."""
    for local, raw in enumerate(np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0].tolist()):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return local, f"expected an id in UTF-8, found {raw[:60]!r}"
        if not text or "\0" in text or ".." in text.split("/"):
            return local, f"expected an id, not empty, without NUL and '..', found {text[:60]!r}"
    return None


def _wrong_target(values: NDArray[np.int32], info: StoreInfo) -> tuple[int, str] | None:
    most = len(info.target_names) - 1 if info.target_names is not None else np.iinfo(np.int32).max
    bad = np.flatnonzero((values < -1) | (values > most))
    return (int(bad[0]), f"expected labels from -1 to {most}, found {values[bad[0]]}") if len(bad) else None


def _check_distinct(texts: NDArray[np.bytes_], spec: ArraySpec, found: Verification) -> None:
    order = np.argsort(texts, kind="stable")
    ordered = texts[order]
    for place in np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != b"")).tolist():
        text = ordered[place].decode(errors="replace")
        for row, other in zip(order[place : place + 2].tolist(), order[place : place + 2][::-1].tolist(), strict=True):
            found.lose(spec, row // found.info.shard_size, f"row {other} has the same id", row, text)


def _usual_workers(info: StoreInfo) -> int:
    """One a core, where there is enough to do for what it takes to start them."""
    return 1 if info.num_rows < _MANY_ROWS else min(usable_cores(), _MOST_WORKERS)


def _check_shards(files: StoreFiles, found: Verification, ids: NDArray[np.bytes_], workers: int, observer: Observer) -> None:
    info, seen = found.info, 0
    size = max(_ROWS_A_TASK // info.shard_size, 1)
    tasks = [range(start, min(start + size, info.num_shards)) for start in range(0, info.num_shards, size)]
    with _processes(min(workers, len(tasks))) as each:
        for check in itertools.chain.from_iterable(
            each(functools.partial(_check_some, files, info, frozenset(found.lost.get(info.ids_array, ()))), tasks)
        ):
            seen += len(info.shard_rows(check.shard))
            observer.rows(seen, 0)
            found.rows.update(check.rows)
            found.committed += check.committed
            if check.damaged:
                found.damaged.append(check.shard)
            found.unreadable.extend(Problem(file, message, check.shard) for file, message in check.unreadable)
            for file, message, row in check.problems:
                text = None if row is None else ids[row].decode(errors="replace") or None
                found.problems.append(Problem(file, message, check.shard, row, text))


def _check_some(files: StoreFiles, info: StoreInfo, lost: frozenset[int], shards: range) -> list[ShardCheck]:
    """``lost``: the shards whose ids cannot be trusted."""
    found = [check_shard(files, info, shard, shard not in lost) for shard in shards]
    # Once more where it looks damaged: a run may have been writing to the shard at that moment.
    again = {check.shard for check in found if check.problems or check.unreadable}
    return [
        check_shard(files, info, check.shard, check.shard not in lost) if check.shard in again else check for check in found
    ]


@contextmanager
def _processes(count: int) -> Iterator[Callable[..., Iterator[list[ShardCheck]]]]:
    """Lend a `map` that works in so many processes; in this one if that is enough."""
    if count <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))

    def each(work: Callable[[range], list[ShardCheck]], tasks: Iterable[range]) -> Iterator[list[ShardCheck]]:
        # The processes that are started here take the mask over: Ctrl-C is for this one, which ends them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.map(work, tasks)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield each
    except BrokenProcessPool as error:
        raise RunError("a process that checks shards has died: out of memory, perhaps; try --workers 1") from error
    finally:
        pool.shutdown(cancel_futures=True)
