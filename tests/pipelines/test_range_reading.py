"""A store on a real S3 server, read by ranges and by shards kept here: in few requests, in any process, in trouble."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from object_server import NEEDS_SERVER, ObjectServer, as_environment, make_bucket, object_server
from runs import SERIAL
from slow_line import slow_line

from labelstore import DamagedError, LabelMapReader, PendingRowError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import open_sink
from labelstore.storage import open_source
from labelstore.storage.ranges import RangeSource

pytestmark = NEEDS_SERVER
ROWS = list(range(21))


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ObjectServer]:
    with object_server(tmp_path_factory.mktemp("objects")) as server, as_environment(server):
        make_bucket()
        yield server


@pytest.fixture(params=["topk", "spectral"])
def stores(server, request, pictures, tmp_path) -> tuple[str, Path]:
    """A store there, and its copy here, to be changed by the test."""
    local = tmp_path / "local.zarr"
    settings = Settings(model="toy_annotators:colours", encoding=request.param, top_k=3)
    annotate(pictures, str(local), settings, SERIAL, Observer())
    remote = f"s3://bucket/{tmp_path.name}.zarr"
    files = (file for file in local.rglob("*") if file.is_file())
    open_sink(remote).put({file.relative_to(local).as_posix(): file.read_bytes() for file in files})
    return remote, local


def same(ours: LabelMapReader, theirs: LabelMapReader, rows: list[int] = ROWS) -> bool:
    one, other = ours.read(rows), theirs.read(rows)
    return bool((one.classes == other.classes).all() and (one.scores == other.scores).all())


def test_it_reads_as_from_here(stores, tmp_path):
    theirs = LabelMapReader(stores[1])
    chance = np.random.default_rng(0)
    for ours in (LabelMapReader(stores[0]), LabelMapReader(stores[0], cache_dir=tmp_path / "cache")):
        for count in (1, 5, 40):
            rows, boxes = chance.integers(0, 21, count), np.tile([0.9, 0.2, 0.1, 0.8], (count, 1))
            assert same(ours, theirs, rows.tolist())
            np.testing.assert_array_equal(ours.pool(rows, boxes), theirs.pool(rows, boxes))
        np.testing.assert_array_equal(ours.status(), theirs.status())
        np.testing.assert_array_equal(ours.targets, theirs.targets)
        assert list(ours.ids) == list(theirs.ids)
        assert [ours.error(row) for row in ROWS] == [theirs.error(row) for row in ROWS]
        np.testing.assert_array_equal(ours[ours.ids[3]].scores, theirs[3].scores)


def test_requests_are_few_and_go_together(stores, server, tmp_path):
    with slow_line(server.address, 0.1) as line, as_environment(line):
        reader, truth = LabelMapReader(stores[0]), LabelMapReader(stores[1])
        arrays = [spec for spec in reader._rows._source._committed if spec.by_row]
        assert same(reader, truth)  # commits, indexes and small files are known from now on
        before, start = line.requests, time.monotonic()
        assert same(reader, truth)
        took = time.monotonic() - start
        requests = line.requests - before
        assert requests == len(arrays) * reader.info.num_shards  # neighbours come together
        assert took < 0.1 * requests / 2
        kept = LabelMapReader(stores[0], cache_dir=tmp_path / "cache")
        assert same(kept, truth)
        before = line.requests
        assert same(kept, truth)
        assert line.requests == before


def test_a_store_that_is_still_written(stores):
    remote, local = stores
    commit = next((local / "commits").glob("c?2*")).relative_to(local).as_posix()
    open_sink(remote).delete(commit)
    reader, truth = LabelMapReader(remote), LabelMapReader(local)
    row = 2 * reader.info.shard_size
    with pytest.raises(PendingRowError):
        reader.read([0, row])
    assert same(reader, truth, [0])
    open_sink(remote).put({commit: (local / commit).read_bytes()})
    assert same(reader, truth)


@pytest.mark.parametrize("harm", ["gone", "longer", "shorter", "empty", "a bit"])
def test_an_object_that_is_not_the_one_committed(stores, harm, tmp_path):
    remote, local = stores
    spec = next(spec for spec in open_source(local)[0]._committed if spec.by_row)
    file = next((local / spec.name).glob("c?1*"))
    key, data = file.relative_to(local).as_posix(), file.read_bytes()
    if harm == "gone":
        open_sink(remote).delete(key)
    else:
        bit = data[:8] + bytes([data[8] ^ 1]) + data[9:]
        changed = {"longer": data + b"\0", "shorter": data[:-1], "empty": b"", "a bit": bit}
        open_sink(remote).put({key: changed[harm]})
    for reader in (LabelMapReader(remote), LabelMapReader(remote, cache_dir=tmp_path / "cache")):
        with pytest.raises(DamagedError, match=r"row \d+ \('.*'\)" if harm == "a bit" else spec.name):
            reader.read(ROWS)
        assert same(reader, LabelMapReader(local), [0, 20])


def test_forked_and_spawned_processes_and_threads_read_on(stores):
    reader, truth = map(LabelMapReader, stores)
    assert isinstance(reader._rows._source, RangeSource)
    assert same(reader, truth, [0, 1])
    forking = multiprocessing.get_context("fork")
    said = forking.SimpleQueue()
    child = forking.Process(target=lambda: said.put(reader.read(ROWS).scores))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(said.get(), truth.read(ROWS).scores)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(reader.read, (ROWS,)).scores, truth.read(ROWS).scores)
    told: list[bool] = []
    threads = [threading.Thread(target=lambda: told.append(same(reader, truth))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [True] * 4


@pytest.mark.slow
def test_a_server_that_comes_back_is_waited_for(stores, server):
    reader, truth = map(LabelMapReader, stores)
    assert same(reader, truth, [0])
    server.kill()

    def again() -> None:
        time.sleep(1)
        server.start()

    helper = threading.Thread(target=again)
    helper.start()
    try:
        assert same(reader, truth)
    finally:
        helper.join()
