"""Two runs that add rows to a store on a real S3 server: one wins, the other is told, and the store is whole."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from object_server import NEEDS_SERVER, as_environment, make_bucket, object_server

from labelstore import LabelMapReader, LabelStoreError
from labelstore.errors import StoreBusyError
from labelstore.pipelines.claims import CLAIMED, Claim
from labelstore.pipelines.extending import Extension, extend_store, plan_extension
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.sources import Listing
from labelstore.pipelines.verifying import verify_store
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.schema import StoreInfo
from labelstore.storage import open_source

pytestmark = NEEDS_SERVER
OLD = [f"old{number}.jpg" for number in range(4)]
LONG_AGO = Claim("0" * 32, "2026-01-01T00:00:00+00:00", "process 1 on a machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[None]:
    with object_server(tmp_path_factory.mktemp("objects")) as server, as_environment(server):
        make_bucket()
        yield


@pytest.fixture
def store(server, request) -> str:
    """A store of one finished shard, of class 1."""
    location = f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}.zarr"
    with LabelMapWriter.create(location, OLD, num_classes=20, map_size=(3, 3), top_k=2, shard_size=4) as writer:
        fill(writer, 1)
    return location


def fill(writer: LabelMapWriter, best: int) -> None:
    for shard in writer.pending():
        with writer.shard(shard) as rows:
            classes = np.tile(np.array([best, 0])[None, :, None, None], (len(rows), 1, 3, 3))
            rows.put_maps(0, classes, np.tile(np.array([9.0, 0.0])[None, :, None, None], (len(rows), 1, 3, 3)))


def planned(before: StoreInfo, name: str) -> Extension:
    ids = tuple(f"{name}{number}.jpg" for number in range(4))
    return plan_extension(before, Listing("/photos", ids, np.full(4, -1, np.int32), None, None), np.arange(4))


def say(store: str, claim: Claim) -> None:
    """Write a run's claim into a store."""
    system = _system()
    root = json.loads(system.cat_file(f"{store}/zarr.json"))
    root["attributes"][CLAIMED] = claim.to_attribute()
    system.pipe_file(f"{store}/zarr.json", json.dumps(root, indent=2).encode())


def _system():
    from s3fs import S3FileSystem

    return S3FileSystem(skip_instance_cache=True)


def everything(store: str) -> dict[str, bytes]:
    system = _system()
    return {name: system.cat_file(name) for name in system.find(store)}


@pytest.mark.parametrize("names", [("cat", "dog"), ("a long name of cat", "a long name of dog")])
def test_what_was_planned_for_a_store_that_has_grown_since_is_refused(store, names):
    before = open_source(store)[1]
    first, second = (planned(before, name) for name in names)
    extend_store(store, before, first)
    with LabelMapWriter(store) as writer:
        fill(writer, 7)
    there = everything(store)
    with pytest.raises(StoreBusyError, match="another run has added rows meanwhile; nothing was added"):
        extend_store(store, before, second)
    assert everything(store) == there
    reader = LabelMapReader(store, compiled=False)
    assert list(reader.ids) == [*OLD, *(f"{names[0]}{number}.jpg" for number in range(4))]
    assert reader.pool([f"{names[0]}0.jpg"], [[0, 0, 1, 1]]).argmax() == 7
    assert verify_store(store, 1, Observer()).whole


@pytest.mark.parametrize("attempt", range(3))
def test_of_extensions_at_the_same_time_one_wins(store, attempt):
    before, start, told = open_source(store)[1], threading.Barrier(4), {}

    def run(number: int) -> None:
        extension = planned(before, f"run{number}-")
        start.wait()
        try:
            extend_store(store, before, extension)
            told[number] = None
        except LabelStoreError as error:
            told[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, error in told.items() if error is None]
    assert {type(error) for error in told.values() if error is not None} == {StoreBusyError}
    with LabelMapWriter(store) as writer:
        fill(writer, 7)
    assert list(LabelMapReader(store).ids) == [*OLD, *(f"run{winner}-{number}.jpg" for number in range(4))]
    assert verify_store(store, 1, Observer()).whole


def test_nothing_is_changed_while_another_run_adds_rows(store):
    say(store, Claim.new())
    _system().pipe_file(f"{store}/status/c.7", b"of a row that is being added")
    before, there = open_source(store)[1], everything(store)
    with pytest.raises(StoreBusyError, match=r"process \d+ on .* is adding rows to this store; wait for it"):
        extend_store(store, before, planned(before, "cat"))
    with pytest.raises(StoreBusyError, match="is adding rows to this store"):
        repair_store(store, 1, Observer())
    assert remove_left_overs(store) == 0
    assert everything(store) == there
    assert LabelMapReader(store).status().tolist() == [1] * 4


def test_the_claim_of_a_run_that_died_is_taken_over(store):
    say(store, LONG_AGO)
    before = open_source(store)[1]
    extend_store(store, before, planned(before, "cat"))
    with LabelMapWriter(store) as writer:
        fill(writer, 7)
    assert verify_store(store, 1, Observer()).whole


def test_verify_finds_it_and_repair_removes_it(store):
    there = everything(store)
    say(store, LONG_AGO)
    (problem,) = verify_store(store, 1, Observer()).problems
    assert (problem.file, problem.message) == ("zarr.json", f"{LONG_AGO} has begun to add rows, and was cut off")
    assert repair_store(store, 1, Observer()).metadata
    assert everything(store) == there


def test_a_run_whose_claim_was_taken_over_stops(store, monkeypatch):
    """It wakes up before its first file of ids: the store belongs to the other one by then."""
    before, late = open_source(store)[1], planned(open_source(store)[1], "late")
    from labelstore.pipelines import extending

    plain = extending._add_index

    def asleep(*given) -> None:
        monkeypatch.setattr(extending, "_add_index", plain)
        say(store, LONG_AGO)  # as if its own had become old
        extend_store(store, before, planned(before, "cat"))
        plain(*given)

    monkeypatch.setattr(extending, "_add_index", asleep)
    with pytest.raises(StoreBusyError, match="another run has changed what this store says of itself"):
        extend_store(store, before, late)
    assert list(LabelMapReader(store).ids) == [*OLD, *(f"cat{number}.jpg" for number in range(4))]
    assert verify_store(store, 1, Observer()).problems == []
