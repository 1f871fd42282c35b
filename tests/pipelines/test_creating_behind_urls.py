"""Creating a store on a real S3 server: nothing that is there is ever deleted or written over, and of two creators one wins."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from object_server import NEEDS_SERVER, as_environment, make_bucket, object_server
from runs import SERIAL

from labelstore import FormatError, LabelMapReader, LabelStoreError, StoreNotFoundError
from labelstore.encodings import committed_arrays
from labelstore.errors import StoreBusyError
from labelstore.pipelines import free_place
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.claims import Claim
from labelstore.pipelines.exchange.combining import merge_stores, subset_store
from labelstore.pipelines.exchange.converting import convert_store
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.verifying import verify_store
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.schema import UNFINISHED, index_arrays

pytestmark = NEEDS_SERVER
IDS = [f"{number}.jpg" for number in range(8)]
OTHERS = {f"photos/{number:03d}.jpg": b"a photograph" for number in range(10)} | {
    "photos2/notes.txt": b"beside",
    "photos.txt": b"beside as well",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[None]:
    with object_server(tmp_path_factory.mktemp("objects")) as server, as_environment(server):
        make_bucket()
        yield


@pytest.fixture
def bucket(server) -> Iterator[dict[str, bytes]]:
    """What is in the bucket before a test; emptied after it."""
    system = _system()
    for key, data in OTHERS.items():
        system.pipe(f"bucket/{key}", data)
    yield OTHERS
    for key in everything():
        system.rm_file(f"bucket/{key}")


def _system():
    from s3fs import S3FileSystem

    return S3FileSystem(skip_instance_cache=True)


def everything() -> dict[str, bytes]:
    system = _system()
    return {name.removeprefix("bucket/"): system.cat_file(name) for name in system.find("bucket")}


def create(store: str, ids: list[str] | None = None) -> LabelMapWriter:
    return LabelMapWriter.create(store, ids or IDS, num_classes=20, map_size=(3, 3), top_k=2, shard_size=4)


def fill(writer: LabelMapWriter) -> None:
    classes = np.tile(np.arange(2)[None, :, None, None], (4, 1, 3, 3))
    for shard in writer.pending():
        with writer.shard(shard) as rows:
            rows.put_maps(0, classes[: len(rows)], np.zeros((len(rows), 2, 3, 3)))


def _annotate(store: str, pictures: Path, done: Path) -> object:
    settings = Settings(model="toy_annotators:colours", encoding="topk", top_k=3)
    return annotate(pictures, store, settings, SERIAL, Observer())


DOORS: dict[str, Callable[[str, Path, Path], object]] = {
    "annotate": _annotate,
    "LabelMapWriter.create": lambda store, pictures, done: create(store),
    "subset": lambda store, pictures, done: subset_store(str(done), store, Selection(patterns=("*",)), SERIAL, Observer()),
    "merge": lambda store, pictures, done: merge_stores([str(done)], store, SERIAL, Observer()),
    "convert": lambda store, pictures, done: convert_store(
        str(done), store, EncodingChoice("spectral"), None, SERIAL, Observer()
    ),
}


@pytest.mark.parametrize("place", ["s3://bucket/photos", "s3://bucket"])
@pytest.mark.parametrize("door", DOORS)
def test_a_place_with_other_objects_is_refused_and_nothing_changes(bucket, pictures, picture_store, door, place):
    found = {"s3://bucket/photos": r"found 10 objects \(000.jpg, 001.jpg, 002.jpg, \.\.\.\)", "s3://bucket": "found 12 objects"}
    with pytest.raises(FormatError, match=f"expected nothing or a creation that was cut off, {found[place]}"):
        DOORS[door](place, pictures, picture_store)
    assert everything() == bucket


def test_it_is_refused_before_there_is_any_work(bucket, pictures, picture_store, monkeypatch):
    class Deaf(Observer):
        def phase(self, text: str) -> None:
            assert "loading" not in text

    with pytest.raises(FormatError, match="found 10 objects"):
        annotate(pictures, "s3://bucket/photos", Settings(model="toy_annotators:colours"), SERIAL, Deaf())


def test_many_objects_are_not_all_listed(bucket, monkeypatch):
    monkeypatch.setattr(free_place, "_MOST_LOOKED_AT", 4)
    with pytest.raises(FormatError, match=r"found 4 or more objects \(000.jpg, "):
        create("s3://bucket/photos")


def test_a_folder_that_a_console_has_made_and_objects_beside_do_not_matter(bucket):
    _system().pipe("bucket/photo/", b"")
    with create("s3://bucket/photo") as writer:
        fill(writer)
    assert verify_store("s3://bucket/photo", 1, Observer()).rows["done"] == 8
    assert {key: data for key, data in everything().items() if not key.startswith("photo/")} == bucket


def test_what_another_run_has_made_since_one_looked_stays(bucket):
    with create("s3://bucket/s.zarr") as first:
        fill(first)
        before = everything()
        with pytest.raises(FormatError, match="found a label store"):
            create("s3://bucket/s.zarr")
        assert everything() == before
        assert first.pending() == []


def test_a_store_that_has_lost_its_metadata_is_no_free_place(bucket):
    with create("s3://bucket/s.zarr") as writer:
        fill(writer)
    _system().rm_file("bucket/s.zarr/zarr.json")
    before = everything()
    with pytest.raises(StoreNotFoundError):
        LabelMapReader("s3://bucket/s.zarr")
    with pytest.raises(FormatError, match=r"found \d+ objects \(classes/c.0.0.0.0, "):
        create("s3://bucket/s.zarr")
    assert everything() == before


def unfinished(said: object) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {UNFINISHED: said}}).encode()


REMAINS = ("spectra/zarr.json", "commits/zarr.json", "ids/zarr.json", "ids/c.0.0", "ids/c.7.0", "targets/c.7")


@pytest.mark.parametrize("said", [True, {"token": "0" * 32, "since": "2026-01-01T00:00:00+00:00", "by": "process 1 on x"}])
def test_a_creation_that_was_cut_off_is_started_again(bucket, said):
    system = _system()
    for key in REMAINS:
        system.pipe(f"bucket/s.zarr/{key}", b"of the first try")
    system.pipe("bucket/s.zarr/zarr.json", unfinished(said))
    with create("s3://bucket/s.zarr") as writer:
        fill(writer)
    assert verify_store("s3://bucket/s.zarr", 1, Observer()).problems == []
    assert {key: data for key, data in everything().items() if not key.startswith("s.zarr/")} == bucket


@pytest.mark.parametrize(
    "stranger", ["notes.txt", "ids/mine.jpg", "mine/zarr.json", "ids/c.0.0/x", "commits/c.0.0.0", "status/c.0"]
)
def test_neither_other_objects_nor_maps_are_remains_of_a_creation(bucket, stranger):
    system = _system()
    for key in (*REMAINS, stranger):
        system.pipe(f"bucket/s.zarr/{key}", b"kept")
    system.pipe("bucket/s.zarr/zarr.json", unfinished(True))
    before = everything()
    with pytest.raises(FormatError, match=rf"found 1 object \({stranger}\); nothing was changed"):
        create("s3://bucket/s.zarr")
    assert everything() == before


def test_a_creation_that_is_under_way_is_left_alone(bucket):
    _system().pipe("bucket/s.zarr/zarr.json", unfinished(Claim.new().to_attribute()))
    before = everything()
    with pytest.raises(StoreBusyError, match=r"process \d+ on .* is creating this store"):
        create("s3://bucket/s.zarr")
    assert everything() == before


def test_a_group_of_another_program_is_refused(bucket):
    _system().pipe("bucket/s.zarr/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    before = everything()
    with pytest.raises(FormatError, match="found another program's zarr.json"):
        create("s3://bucket/s.zarr")
    assert everything() == before


@pytest.mark.parametrize("attempt", range(3))
def test_of_creators_at_the_same_time_one_wins_and_its_store_is_whole(bucket, attempt):
    start, told = threading.Barrier(4), {}

    def run(number: int) -> None:
        start.wait()
        try:
            with create("s3://bucket/s.zarr", [f"{number}-{image}" for image in IDS]) as writer:
                fill(writer)
            told[number] = None
        except LabelStoreError as error:
            told[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, error in told.items() if error is None]
    assert {type(error) for error in told.values() if error is not None} <= {StoreBusyError, FormatError}
    assert list(LabelMapReader("s3://bucket/s.zarr").ids) == [f"{winner}-{image}" for image in IDS]
    assert verify_store("s3://bucket/s.zarr", 1, Observer()).whole


def test_a_name_is_no_pattern_when_it_is_deleted(bucket):
    system = _system()
    for key in ("s*.zarr/status/c.0", "s1.zarr/status/c.0"):
        system.pipe(f"bucket/{key}", b"")
    assert open_sink("s3://bucket/s*.zarr").delete("status/c.0")
    assert set(everything()) == {*bucket, "s1.zarr/status/c.0"}


def test_the_names_of_remains_are_those_of_all_encodings(picture_store, spectral_store):
    for store in (picture_store, spectral_store):
        info = LabelMapReader(store).info
        for spec in (*committed_arrays(info), *index_arrays(info)):
            assert free_place.is_remains(f"{spec.name}/zarr.json")
