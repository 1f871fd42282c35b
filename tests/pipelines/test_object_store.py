"""A store on a real S3 server: written, extended, checked, mended and read there, with the bytes of a local one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import run_here
from folders import store_contents, without_ids
from object_server import NEEDS_SERVER, as_environment, make_bucket, object_server
from runs import SERIAL

from labelstore import DamagedError, LabelMapReader
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.exchange.combining import merge_stores, subset_store
from labelstore.pipelines.exchange.converting import convert_store
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.store_files import store_files
from labelstore.pipelines.verifying import verify_store
from labelstore.storage.documents import MOST_BYTES

pytestmark = NEEDS_SERVER


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """Its address."""
    with object_server(tmp_path_factory.mktemp("objects")) as server, as_environment(server):
        make_bucket()
        yield server.address


@pytest.fixture
def bucket(server, request) -> str:
    """A place for this test's store."""
    return f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}.zarr"


def make(images: Path, store: str, encoding: str = "topk", **more: bool):
    return annotate(
        images, store, Settings(model="toy_annotators:colours", encoding=encoding, top_k=3), SERIAL, Observer(), **more
    )


def objects(store: str) -> dict[str, bytes]:
    files = store_files(store)
    keys = [entry.name for entry in files.entries()]
    return {key: files.read(key, MOST_BYTES) or b"" for key in keys if not key.endswith("zarr.json")}


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_it_has_the_bytes_of_a_local_store(pictures, picture_store, bucket, tmp_path, encoding):
    make(pictures, bucket, encoding)
    make(pictures, str(tmp_path / "local.zarr"), encoding)
    local = {name: data for name, data in store_contents(tmp_path / "local.zarr").items() if not name.endswith("zarr.json")}
    assert without_ids(objects(bucket)) == local
    ours, theirs = LabelMapReader(bucket), LabelMapReader(tmp_path / "local.zarr")
    np.testing.assert_array_equal(ours.read(range(21)).scores, theirs.read(range(21)).scores)
    boxes = np.tile([0.1, 0.2, 0.7, 0.9], (21, 1))
    np.testing.assert_array_equal(ours.pool(range(21), boxes), theirs.pool(range(21), boxes))
    assert verify_store(bucket, 1, Observer()).whole


def test_a_run_goes_on_and_a_store_grows_there(pictures, bucket, tmp_path):
    import s3fs

    make(pictures, bucket)
    s3fs.S3FileSystem().rm(f"{bucket}/commits/c.2.0.0")
    assert make(pictures, bucket).new_rows == 4
    both = Path(shutil.copytree(pictures, tmp_path / "both"))
    shutil.copy(both / "red" / "0.png", both / "red" / "a long new name.png")
    assert make(both, bucket, extend=True).new_rows == 1
    reader = LabelMapReader(bucket)
    np.testing.assert_array_equal(reader["red/a long new name.png"].classes, reader["red/0.png"].classes)
    assert verify_store(bucket, 1, Observer()).whole


def test_damage_is_found_and_mended_there(pictures, bucket):
    import s3fs

    make(pictures, bucket)
    before, system = objects(bucket), s3fs.S3FileSystem()
    for name in ("classes/c.1.0.0.0", "ids/c.3.0", "status/c.4"):
        data = bytearray(before[name])
        data[len(data) // 2] ^= 1
        system.pipe(f"{bucket}/{name}", bytes(data))
    with pytest.raises(DamagedError):
        LabelMapReader(bucket).read(range(21))
    found = verify_store(bucket, 1, Observer())
    assert {problem.file for problem in found.problems} == {"classes/c.1.0.0.0", "ids/c.3.0", "status/c.4"}
    repair_store(bucket, 1, Observer(), agree=lambda _: True)
    assert make(pictures, bucket).new_rows == 8
    assert objects(bucket) == before
    assert verify_store(bucket, 1, Observer()).whole


def test_the_commands_work_on_it_and_say_what_is_wrong(pictures, bucket, monkeypatch):
    make(pictures, bucket)
    assert run_here("verify", bucket).code == 0
    assert "21: 21 done" in " ".join(run_here("info", bucket).out.split())
    assert "red" in run_here("inspect", "red/3.png", "--store", bucket).out
    gone = run_here("info", "s3://bucket/nothing.zarr")
    assert (gone.code, "Traceback" in gone.err) == (1, False)
    assert "no store here" in gone.message
    nowhere = run_here("info", "s3://no-such-bucket/labels.zarr")
    assert (nowhere.code, "Traceback" in nowhere.err) == (1, False)


def test_stores_there_are_subset_merged_and_converted(pictures, bucket, tmp_path):
    """From the server to the server, whole shards and single rows; and back to a folder."""
    make(pictures, bucket)
    parts = [bucket.replace(".zarr", f"-{number}.zarr") for number in range(4)]
    subset_store(bucket, parts[0], Selection(patterns=("blue/*", "green/0.png")), SERIAL, Observer())
    subset_store(bucket, parts[1], Selection(patterns=("green/[1-6].png", "red/*")), SERIAL, Observer())
    merge_stores(parts[:2], parts[2], SERIAL, Observer())
    merge_stores(parts[:2], str(tmp_path / "local.zarr"), SERIAL, Observer())
    convert_store(parts[2], parts[3], EncodingChoice("spectral"), None, SERIAL, Observer())
    before, ids = LabelMapReader(bucket), list(LabelMapReader(bucket).ids)
    for store in (parts[2], tmp_path / "local.zarr"):
        np.testing.assert_array_equal(LabelMapReader(store).read(ids).scores, before.read(ids).scores)
        assert verify_store(str(store), 1, Observer()).whole
    assert LabelMapReader(parts[3]).info.imported.location == parts[2]
    assert verify_store(parts[3], 1, Observer()).whole
