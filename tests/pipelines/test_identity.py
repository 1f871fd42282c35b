"""Commits know their store and the images of their rows: what a late writer leaves is never taken for labels."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from folders import contents, store_contents
from pictures import paint
from runs import SERIAL

from labelstore import LabelMapReader, PendingRowError
from labelstore.errors import StoreMismatchError
from labelstore.ids import pack_ids
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.exchange.combining import merge_stores, subset_store
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.store import ShardWriter
from labelstore.pipelines.verifying import verify_store
from labelstore.pipelines.writer import LabelMapWriter, open_writer
from labelstore.storage.metadata import commits_spec
from labelstore.storage.origin import ids_seal

GOLDEN = Path(__file__).parent.parent / "golden"
CATS, DOGS = ([f"{name}{number}.jpg" for number in range(8)] for name in ("cat", "dog"))


def maps(best: int) -> tuple[np.ndarray, np.ndarray]:
    classes = np.tile(np.array([best, 0])[None, :, None, None], (4, 1, 3, 3))
    return classes, np.tile(np.array([9.0, 0.0])[None, :, None, None], (4, 1, 3, 3))


def create(store: Path | str, ids: list[str], best: int | None = None) -> LabelMapWriter:
    """A store of two shards, of which maps say one class if it is given."""
    writer = LabelMapWriter.create(store, ids, num_classes=20, map_size=(3, 3), top_k=2, shard_size=4)
    for shard in writer.pending() if best is not None else ():
        with writer.shard(shard) as rows:
            rows.put_maps(0, *maps(best))
    return writer


def rows_of(store: Path) -> dict[str, int]:
    return dict(+verify_store(str(store), 1, Observer()).rows)


def test_a_writer_that_is_late_touches_nothing_of_the_store_that_is_there_now(tmp_path):
    store = tmp_path / "labels.zarr"
    create(store, CATS).close()
    late = LabelMapWriter(store, lock=False)
    rows = late.shard(0)
    rows.put_maps(0, *maps(7))
    shutil.rmtree(store)
    create(store, DOGS, best=3).close()
    before = contents(store)
    with pytest.raises(StoreMismatchError, match="another store has been made here since this work was begun"):
        rows.commit()
    with pytest.raises(StoreMismatchError, match="another store has been made here"):
        open_writer(str(store), late.info.identity)
    assert contents(store) == before
    assert LabelMapReader(store, compiled=False).pool(["dog0.jpg"], [[0, 0, 1, 1]]).argmax() == 3


def test_a_late_writer_of_a_store_without_an_id_is_found_out_by_the_ids(tmp_path):
    store = Path(shutil.copytree(GOLDEN / "v1-topk.zarr", tmp_path / "labels.zarr"))
    rows = LabelMapWriter(store, lock=False).shard(0, ids_seal(pack_ids(["w", "x", "y", "z"])))
    for row in range(len(rows)):
        rows.fail(row, "late")
    before = contents(store)
    with pytest.raises(StoreMismatchError, match="shard 0 was made for other images than those whose ids are there now"):
        rows.commit()
    assert contents(store) == before


@pytest.fixture(params=["folder", "url", "zarr"])
def place(request, tmp_path) -> Iterator[Callable[[Path], str]]:
    """Where a store is read from: a folder, an object store, and a folder with codecs that only zarr-python knows."""
    memory = fsspec.filesystem("memory")

    def put(store: Path) -> str:
        if request.param == "url":
            memory.put(str(store), f"/{tmp_path.name}.zarr", recursive=True)
            return f"memory://{tmp_path.name}.zarr"
        if request.param == "zarr":
            root, meta = json.loads((store / "zarr.json").read_text()), store / "targets" / "zarr.json"
            del root["attributes"]["labelstore_seals"]
            (store / "zarr.json").write_text(json.dumps(root))
            meta.write_text(meta.read_text().replace('"separator": "."', '"separator":  "."').replace("true", "false"))
        return str(store)

    yield put
    if request.param == "url":
        memory.rm(f"/{tmp_path.name}.zarr", recursive=True)


COMMIT, IDS = "commits/c.0.0.0", "ids/c.0.0"
FILES = ("classes/c.0.0.0.0", "scores/c.0.0.0.0", "score_range/c.0.0", "status/c.0", "errors/c.0.0", "image_crc32/c.0")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ((COMMIT, *FILES), "a commit of another store: expected id [0-9a-f]{32}, found [0-9a-f]{32}"),
        ((IDS,), "a commit for other images than those whose ids are here"),
    ],
)
def test_a_shard_of_another_store_does_not_count_nor_one_of_other_images(tmp_path, place, keys, problem):
    store, other = tmp_path / "dogs.zarr", tmp_path / "cats.zarr"
    create(store, DOGS, best=3).close()
    create(other, CATS, best=7).close()
    for key in keys:
        shutil.copy(other / key, store / key)
    if IDS not in keys:
        assert rows_of(store) == {"done": 4, "damaged": 4}
    (found,) = [each for each in verify_store(str(store), 1, Observer()).problems if each.file == COMMIT]
    assert re.fullmatch(problem, found.message)
    where = place(store)
    reader = LabelMapReader(where, compiled=False)
    assert reader.status().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(PendingRowError):
        reader.read([0])
    assert reader.pool([4], [[0, 0, 1, 1]]).argmax() == 3


def test_repair_gives_up_a_commit_of_another_store_and_the_same_run_goes_on(tmp_path):
    store, other = tmp_path / "dogs.zarr", tmp_path / "cats.zarr"
    create(store, DOGS, best=3).close()
    create(other, CATS, best=7).close()
    shutil.copy(other / COMMIT, store / COMMIT)
    with LabelMapWriter(store) as writer:
        assert writer.pending() == [0]
    assert repair_store(str(store), 1, Observer()).shards == 1
    assert rows_of(store) == {"done": 4, "pending": 4}


def test_ids_that_cannot_be_read_contradict_no_commit(tmp_path):
    """Which image a row was made from is then found by what its commit covers (`annotate` restores lost ids)."""
    store = tmp_path / "dogs.zarr"
    create(store, DOGS, best=3).close()
    (store / IDS).unlink()
    found = verify_store(str(store), 1, Observer())
    assert [problem.file for problem in found.problems] == [IDS]
    assert +found.rows == {"done": 8}


def test_the_seal_of_ids_does_not_depend_on_how_wide_they_are_kept():
    ids = pack_ids(["a", "bc", "a"])
    assert ids_seal(ids) == ids_seal(np.pad(ids, ((0, 0), (0, 5))))
    assert len({ids_seal(pack_ids(texts)) for texts in (["a", "bc"], ["ab", "c"], ["bc", "a"], ["a", "bd"])}) == 4
    assert ids_seal(np.zeros((3, 4), np.uint8)) == ids_seal(np.zeros((0, 4), np.uint8)) == 0


def test_shards_that_are_copied_belong_to_the_store_that_they_are_copied_to(tmp_path, picture_store):
    whole, part = str(tmp_path / "whole.zarr"), str(tmp_path / "part.zarr")
    merge_stores([str(picture_store)], whole, SERIAL, Observer())
    subset_store(str(picture_store), part, Selection(patterns=("blue/*",)), SERIAL, Observer())
    ids = {LabelMapReader(store).info.store_id for store in (picture_store, whole, part)}
    assert len(ids) == 3
    assert None not in ids
    for store in (whole, part):
        assert verify_store(store, 1, Observer()).whole
    before, after = store_contents(picture_store), store_contents(Path(whole))
    assert {key for key in before if key.startswith("commits/c.")} == {key for key in after if key.startswith("commits/c.")}
    assert all(before[key] == after[key] for key in before if "/c." in key)
    shutil.copy(picture_store / COMMIT, Path(whole) / COMMIT)
    assert LabelMapReader(whole).status()[:4].tolist() == [0] * 4


def test_a_store_without_an_id_goes_on_without_one(tmp_path):
    store = Path(shutil.copytree(GOLDEN / "v1-topk.zarr", tmp_path / "labels.zarr"))
    with LabelMapWriter(store) as writer:
        assert writer.info.store_id is None
        assert commits_spec(writer.info).row_shape == (6, 4)
        with writer.shard(2) as rows:
            rows.fail(0, "noted by hand")
    found = verify_store(str(store), 1, Observer())
    assert found.whole
    assert found.rows == {"done": 7, "failed": 2}
    (store / "commits" / "zarr.json").unlink()
    assert repair_store(str(store), 1, Observer()).metadata
    assert verify_store(str(store), 1, Observer()).whole
    assert LabelMapReader(store).info.store_id is None


def test_longer_ids_leave_commits_as_they_are(tmp_path, pictures):
    store, settings = str(tmp_path / "labels.zarr"), Settings(model="toy_annotators:colours", encoding="topk", top_k=3)
    annotate(pictures, store, settings, SERIAL, Observer())
    commits = {key: data for key, data in contents(Path(store)).items() if key.startswith("commits/c.")}
    more = Path(shutil.copytree(pictures, tmp_path / "more"))
    paint(more / "red" / "an image with a much longer name than any.png", "red")
    annotate(more, store, settings, SERIAL, Observer(), extend=True)
    assert LabelMapReader(store).info.ids_array == "ids_1"
    assert commits.items() <= contents(Path(store)).items()
    assert verify_store(store, 1, Observer()).whole


def test_a_damaged_id_is_no_id(tmp_path):
    store = tmp_path / "labels.zarr"
    create(store, DOGS).close()
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["labelstore"]["store_id"] = "x"
    del root["attributes"]["labelstore_seals"]
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match="store_id': expected 32 hexadecimal digits, found 'x'"):
        ShardWriter(str(store))
