"""Readers that stay open while shards are made again: by `repair` and `annotate`, by ``--retry-failed``, on any machine."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import flip

from labelstore import DamagedError, FailedRowError, LabelMapReader, PendingRowError
from labelstore.pipelines.store import ShardWriter
from labelstore.schema import Status
from labelstore.storage.budget import BUDGET
from labelstore.storage.remote import ZarrSource

SHARD, ROWS = 1, [4, 5, 6, 7]
OTHERS = [0, 8, 12, 16, 20]
WHOLE = [0.0, 0.0, 1.0, 1.0]
Opener = Callable[[Path], LabelMapReader]
KEEPERS = ("cache", "mirror", "cache of ranges", "cache of a mirror")
"""Ways that may go on with whole shards, or maps, as they were when they were first read."""


def by_zarr(store: Path, folder: Path) -> LabelMapReader:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labelstore.storage.ranges.RangeSource", ZarrSource)
        return LabelMapReader(str(store))


WAYS: dict[str, Callable[[Path, Path], LabelMapReader]] = {
    "local": lambda store, folder: LabelMapReader(store),
    "compiled": lambda store, folder: LabelMapReader(store, compiled=True),
    "pickled": lambda store, folder: pickle.loads(pickle.dumps(LabelMapReader(store))),
    "cache": lambda store, folder: LabelMapReader(store, cache=folder),
    "ranges": lambda store, folder: LabelMapReader(str(store)),
    "cache of ranges": lambda store, folder: LabelMapReader(str(store), cache=folder),
    "mirror": lambda store, folder: LabelMapReader(str(store), cache_dir=folder),
    "cache of a mirror": lambda store, folder: LabelMapReader(str(store), cache_dir=folder, cache=folder / "maps"),
    "full mirror": lambda store, folder: LabelMapReader(str(store), cache_dir=folder, cache_dir_bytes=0),
    "zarr": by_zarr,
}


@pytest.fixture
def copy(picture_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(picture_store, tmp_path / "copy.zarr"))


@pytest.fixture(autouse=True)
def urls_are_paths(monkeypatch) -> None:
    """Strings are opened as URLs are; one shard's files are kept open at most."""
    monkeypatch.setattr("labelstore.storage.open.local_path", lambda location: location if isinstance(location, Path) else None)
    monkeypatch.setattr(BUDGET, "most", lambda: 2)


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return str(request.param)


@pytest.fixture
def opener(way, tmp_path) -> Opener:
    return lambda store: WAYS[way](store, tmp_path / "cache")


def make_again(store: Path, turn: int = 1, failed: bool = False) -> None:
    """Make the shard again: each row gets the maps of the row so many places on, none at all if it failed."""
    writer, packed = ShardWriter(str(store)), LabelMapReader(store).read_packed(ROWS)
    status = np.full(len(ROWS), Status.FAILED if failed else Status.DONE, np.uint8)
    maps = {} if failed else {name: np.roll(values, turn, axis=0) for name, values in packed.items()}
    writer.write(SHARD, {**writer.empty_rows(SHARD), **maps, "status": status})


def touch_all(reader: LabelMapReader) -> None:
    reader.read([*ROWS, *OTHERS])
    reader.read(OTHERS)


ASKS: dict[str, Callable[[LabelMapReader], object]] = {
    "read": lambda reader: reader.read([*ROWS, 0]).scores,
    "one": lambda reader: reader[5].scores,
    "pool": lambda reader: reader.pool([*OTHERS, 6], [WHOLE] * 6),
    "pool one": lambda reader: reader.pool([6], [WHOLE]),
    "packed": lambda reader: reader.read_packed(ROWS)["classes"],
    "crc32": lambda reader: reader.image_crc32s(ROWS),
}


@pytest.mark.parametrize("ask", ASKS)
def test_the_new_rows_are_served(copy, opener, way, ask):
    reader = opener(copy)
    before = ASKS[ask](reader)
    touch_all(reader)
    make_again(copy)
    keeps = way in KEEPERS and (ask != "crc32" or "mirror" in way)
    truth = before if keeps else ASKS[ask](LabelMapReader(copy))
    np.testing.assert_array_equal(ASKS[ask](reader), truth)
    touch_all(reader)


def test_again_and_again(copy, opener, tmp_path):
    reader = opener(copy)
    for turn in (1, 2, 3):
        touch_all(reader)
        make_again(copy, turn)
        for kept in tmp_path.glob("cache/**/*.cache"):
            os.truncate(kept, 0)
        LabelMapReader(str(copy), cache_dir=tmp_path / "cache").read(ROWS)  # another process has fetched it
        np.testing.assert_array_equal(reader.read(ROWS).scores, LabelMapReader(copy).read(ROWS).scores)


def test_failed_rows_that_were_tried_again_are_served(picture_store, copy, opener):
    make_again(copy, failed=True)
    reader = opener(copy)
    reader.read(OTHERS)
    with pytest.raises(FailedRowError):
        reader.read(ROWS)
    shutil.rmtree(copy)
    shutil.copytree(picture_store, copy)
    np.testing.assert_array_equal(reader.read(ROWS).scores, LabelMapReader(copy).read(ROWS).scores)
    assert reader.status(ROWS).tolist() == [Status.DONE] * 4


def test_a_shard_whose_commit_was_taken_back_is_pending_until_it_is_made(copy, opener, monkeypatch):
    reader = opener(copy)
    touch_all(reader)
    commit = copy / "commits" / f"c.{SHARD}.0.0"
    kept = commit.read_bytes()
    commit.unlink()
    for name in ("classes", "scores"):
        (copy / name / f"c.{SHARD}.0.0.0").unlink()
    try:
        reader.read(ROWS)  # out of a copy that is still here and whole
    except PendingRowError:
        assert reader.status(ROWS).tolist() == [Status.PENDING] * 4
    commit.write_bytes(kept)


def test_a_file_that_does_not_fit_its_commit_stays_an_error(copy, opener):
    reader = opener(copy)
    reader.read(OTHERS)
    flip(copy / "scores" / f"c.{SHARD}.0.0.0", 8)
    for _ in range(3):
        with pytest.raises(DamagedError):
            reader.read(ROWS)
    reader.read(OTHERS)


@pytest.mark.parametrize("way", ["local", "compiled", "pickled", "mirror"])
def test_threads_see_whole_shards_while_they_are_made_again(copy, tmp_path, monkeypatch, way):
    """Each batch is of one making, or pending; none is damaged, whatever the moment."""
    monkeypatch.setattr("os.fsync", lambda fd: None)
    first = LabelMapReader(copy).pool(ROWS, [WHOLE] * 4)
    makings = [np.roll(first, turn, axis=0) for turn in range(4)]
    reader = WAYS[way](copy, tmp_path / "cache")
    done, seen, wrong = threading.Event(), set(), []

    def keep_reading() -> None:
        while not done.is_set():
            try:
                found = reader.pool([*ROWS, 0], [WHOLE] * 5)[:4]
                reader[12]
                fits = [turn for turn, making in enumerate(makings) if np.allclose(found, making)]
                seen.update(fits)
                if not fits:
                    wrong.append("a mixture")
            except PendingRowError:
                pass
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=keep_reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        make_again(copy)
        LabelMapReader(str(copy), cache_dir=tmp_path / "cache").read(ROWS)  # another process fetches it
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) > 1
    np.testing.assert_array_equal(reader.read(ROWS).scores, LabelMapReader(copy).read(ROWS).scores)
