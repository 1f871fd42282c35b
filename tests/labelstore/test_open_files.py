"""How many files readers keep open, together, and what they do when the process has no descriptor left."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from labelstore import LabelMapReader, StoreReadError
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.storage.budget import BUDGET, Budget

SHARDS, SIZE = 200, 2
ROWS = np.random.default_rng(0).permutation(SHARDS * SIZE)
BOXES = np.tile([0.0, 0.0, 1.0, 1.0], (len(ROWS), 1))


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory) -> Path:
    """A store of 200 shards of two files each that stay open, every row of which has a label of its own."""
    path = tmp_path_factory.mktemp("wide") / "wide.zarr"
    ids = [f"{row:04d}.png" for row in range(SHARDS * SIZE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        with LabelMapWriter.create(path, ids, num_classes=401, map_size=(1, 1), top_k=1, shard_size=SIZE) as writer:
            for shard in writer.pending():
                with writer.shard(shard) as rows:
                    classes = np.arange(shard * SIZE, (shard + 1) * SIZE, dtype=np.uint16).reshape(SIZE, 1, 1, 1)
                    rows.put_maps(0, classes, np.full((SIZE, 1, 1, 1), 20, np.float32))
    return path


@pytest.fixture(autouse=True)
def plenty(monkeypatch) -> None:
    """What a test finds scarce is not so in the next."""
    monkeypatch.setattr(BUDGET, "_scarce", BUDGET._scarce)


def is_right(reader: LabelMapReader) -> bool:
    """Whether all ways to read give each row's own labels."""
    classes = reader.read(ROWS).classes[:, 0, 0, 0]
    return bool(
        (reader.pool(ROWS, BOXES).argmax(axis=1) == ROWS).all()
        and (classes == ROWS).all()
        and all(reader[int(row)].classes.item() == row for row in ROWS[:40])
        and (reader.status() == 1).all()
        and (reader.image_crc32s(ROWS) == 0).all()
    )


def open_now() -> set[int]:
    """The descriptors of this process, that of looking among them."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


@contextmanager
def descriptors(most: int, taken: int) -> Iterator[None]:
    """Let this process have so many descriptors beyond those that it has now, of which it holds some itself."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(open_now()) + 1 + most
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(taken)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, allowed[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
        for fd in held:
            os.close(fd)


def in_child(work: Callable[[], bool]) -> None:
    """Have a forked child do something, and return that it was right."""
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(0 if work() else 1))
    child.start()
    child.join(120)
    assert child.exitcode == 0


def in_threads(readers: list[LabelMapReader]) -> bool:
    told: list[bool] = []
    threads = [threading.Thread(target=lambda reader=reader: told.append(is_right(reader))) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told == [True] * len(readers)


@pytest.mark.parametrize(("most", "taken"), [(200, 0), (60, 0), (200, 170), (20, 0)])
@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_any_batch_is_read_with_few_descriptors(wide_store, most, taken, readers):
    def work() -> bool:
        with descriptors(most, taken):
            return in_threads([LabelMapReader(wide_store) for _ in range(readers)])

    in_child(work)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_share_few_descriptors(wide_store):
    def work() -> bool:
        with descriptors(24, 0):
            return in_threads([LabelMapReader(wide_store)] * 6)

    in_child(work)


def test_no_descriptor_at_all_is_an_error_that_says_what_to_do(wide_store, monkeypatch):
    def none(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    reader = LabelMapReader(wide_store)
    with monkeypatch.context() as patch:
        patch.setattr("os.open", none)
        for read in (lambda: reader.pool([0], BOXES[:1]), lambda: reader.read([3, 5]), lambda: LabelMapReader(wide_store)):
            with pytest.raises(StoreReadError, match="Too many open files; .*ulimit -n") as caught:
                read()
            assert caught.value.errno == errno.EMFILE
    assert is_right(reader)


def test_readers_share_one_budget(wide_store, monkeypatch):
    monkeypatch.setattr(BUDGET, "most", lambda: 40)
    readers = [LabelMapReader(wide_store) for _ in range(3)]
    for _ in range(2):
        assert all(map(is_right, readers))
        assert sum(len(reader._rows._source._files) for reader in readers) <= 20


def test_a_reader_that_is_gone_keeps_nothing_open(wide_store):
    gc.collect()
    before = open_now()
    reader = LabelMapReader(wide_store)
    assert is_right(reader)
    assert len(open_now() - before) >= SHARDS
    gc.disable()
    try:
        del reader
        assert open_now() <= before
    finally:
        gc.enable()


def test_files_take_at_most_half_of_what_the_process_may_open(monkeypatch):
    for allowed, expected in [(1024, 512), (20000, 4096), (resource.RLIM_INFINITY, 4096)]:
        monkeypatch.setattr("resource.getrlimit", lambda kind, allowed=allowed: (allowed, allowed))
        assert Budget().most() == expected


def test_what_is_used_is_closed_last(monkeypatch):
    budget, ours, theirs = Budget(), {}, {}
    monkeypatch.setattr(budget, "most", lambda: 4)
    for shard in range(2):
        budget.keep(ours, shard, "ab")
    budget.use(ours, [0, 7])
    budget.keep(theirs, 0, "ab")
    assert (set(ours), set(theirs)) == ({0}, {0})
    budget.let_go(ours)
    budget.keep(theirs, 1, "ab")
    assert set(theirs) == {0, 1}
    assert budget.tight
    budget.drop(theirs, [0, 5])
    assert set(theirs) == {1}
    assert budget.spare()
    assert not budget.spare()
    assert not theirs
