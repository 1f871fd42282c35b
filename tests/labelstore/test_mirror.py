"""Shards of a store behind a URL, kept in a folder here: fetched once, checked, bounded, and never trusted blindly."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
import threading
from collections import Counter
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from damage import flip

from labelstore import CacheError, DamagedError, LabelMapReader, OptionError, PendingRowError
from labelstore.storage.local import LocalSource
from labelstore.storage.mirror import MirrorSource
from labelstore.storage.objects import Objects
from labelstore.storage.remote import ZarrSource

ROWS = list(range(21))
WHOLE = [0.0, 0.0, 1.0, 1.0]


@pytest.fixture
def store(picture_store, tmp_path, monkeypatch) -> Path:
    """A store of six shards in a folder that is opened as URLs are, to be changed by the test."""
    monkeypatch.setattr("labelstore.storage.open.local_path", lambda location: None)
    return Path(shutil.copytree(picture_store, tmp_path / "there.zarr"))


@pytest.fixture
def truth(picture_store) -> np.ndarray:
    return LabelMapReader(picture_store).read(ROWS).scores


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch, tmp_path) -> Path:
    """A file that the keys go to which this process, and those that it forks, ask for."""
    log, fetch = tmp_path / "asked", Objects.fetch
    log.touch()

    def logged(self, parts):
        with log.open("a") as out:
            out.write("".join(f"{part.key}\n" for part in parts))
        return fetch(self, parts)

    monkeypatch.setattr(Objects, "fetch", logged)
    return log


def counted(asked: Path) -> Counter[str]:
    """How often files of shards were asked for, commits apart."""
    keys = asked.read_text().split()
    return Counter(key for key in keys if not key.endswith("zarr.json") and not key.startswith("commits"))


def reader_of(store: Path, cache: Path, most: int | None = None) -> LabelMapReader:
    return LabelMapReader(str(store), cache_dir=cache, cache_dir_bytes=most)


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.shards/commits/c*"))


def bytes_of_shards(cache: Path) -> int:
    files = (file for file in cache.glob("*.shards/*/*") if file.parent.name not in ("ids", "targets"))
    return sum(file.stat().st_size for file in files)


def test_every_file_is_fetched_once(store, cache, truth, asked):
    reader = reader_of(store, cache)
    for _ in range(2):
        assert len(reader.targets) == 21
        np.testing.assert_array_equal(reader.read(ROWS).scores, truth)
    files = {path.relative_to(store).as_posix() for path in store.glob("*/c*") if path.parent.name != "commits"}
    assert counted(asked) == dict.fromkeys(files, 1)
    asked.write_text("")
    again = reader_of(store, cache)
    np.testing.assert_array_equal(again.read(ROWS).scores, truth)
    assert list(again.ids) == list(reader.ids)
    assert not counted(asked)


def test_all_that_a_reader_gives_is_the_same(store, cache, picture_store):
    ours = reader_of(store, cache)
    theirs = LabelMapReader(picture_store)
    assert isinstance(ours._rows._source, MirrorSource)
    boxes = np.tile([0.9, 0.2, 0.1, 0.8], (21, 1))
    np.testing.assert_array_equal(ours.pool(ROWS, boxes), theirs.pool(ROWS, boxes))
    np.testing.assert_array_equal(ours.status(), theirs.status())
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    assert [ours.error(row) for row in ROWS] == [theirs.error(row) for row in ROWS]
    assert [ours.image_crc32(row) for row in ROWS] == [theirs.image_crc32(row) for row in ROWS]
    np.testing.assert_array_equal(ours[7].scores, theirs[7].scores)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).read([1]).scores, theirs.read([1]).scores)


def test_only_what_is_touched_is_fetched(store, cache, asked):
    reader_of(store, cache).read([0, 3, 9])
    assert {key.rsplit("/", 1)[1].split(".")[1] for key in counted(asked) if key.startswith("scores")} == {"0", "2"}
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("share", [0, 0.4, 0.99])
def test_it_keeps_to_its_bound(store, cache, truth, share):
    reader_of(store, cache / "all").read(ROWS)
    most = int(bytes_of_shards(cache / "all") * share)
    for _ in range(2):
        reader = reader_of(store, cache / "some", most)
        for rows in (ROWS, ROWS[::-1], [20], [5, 16, 5]):
            np.testing.assert_array_equal(reader.read(rows).scores, truth[rows])
        np.testing.assert_array_equal(reader.pool([3, 20], [WHOLE] * 2), LabelMapReader(store).pool([3, 20], [WHOLE] * 2))
        assert bytes_of_shards(cache / "some") <= most
        assert (len(kept(cache / "some")) > 0) == (share > 0)


@pytest.mark.parametrize("harm", ["a bit", "cut", "gone", "folder gone"])
def test_damage_here_costs_a_range_read_and_no_more(store, cache, truth, harm, asked):
    reader_of(store, cache).read(ROWS)
    folder = kept(cache)[0].parent.parent
    file = folder / "scores" / "c.1.0.0.0"
    match harm:
        case "a bit":
            flip(file, 8)
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "gone":
            file.unlink()
        case "folder gone":
            shutil.rmtree(folder / "scores")
    reader = reader_of(store, cache)
    np.testing.assert_array_equal(reader.read(ROWS).scores, truth)
    np.testing.assert_array_equal(reader[5].scores, truth[5])
    assert reader.status([5]).tolist() == [1]
    asked.write_text("")
    np.testing.assert_array_equal(reader_of(store, cache).read(ROWS).scores, truth)  # fetched again
    assert counted(asked)["scores/c.1.0.0.0"] == 1
    asked.write_text("")
    np.testing.assert_array_equal(reader_of(store, cache).read(ROWS).scores, truth)
    assert not counted(asked)


def test_ids_here_that_are_damaged_are_fetched_again(store, cache, picture_store):
    reader_of(store, cache)
    flip(next(cache.glob("*.shards/ids/*")), 9)
    for _ in range(2):
        assert list(reader_of(store, cache).ids) == list(LabelMapReader(picture_store).ids)


def test_a_shard_that_was_made_again_is_fetched_again(store, cache, spectral_store):
    reader_of(store, cache).read(ROWS)
    commit, file = store / "commits" / "c.1.0.0", store / "errors" / "c.1.0"
    before = commit.read_bytes()
    commit.unlink()
    pending = reader_of(store, cache)
    with pytest.raises(PendingRowError):
        pending.read([5])
    commit.write_bytes(before)
    assert pending.read([5]).scores.shape[0] == 1
    stale = kept(cache)[1]
    stale.write_bytes(bytes(len(before)))  # as of another commit
    reader_of(store, cache).read([5])
    assert stale.read_bytes() == before
    assert (stale.parent.parent / "errors" / file.name).read_bytes() == file.read_bytes()


def test_damage_there_is_told_of_the_row_alone(store, cache, truth):
    flip(store / "scores" / "c.1.0.0.0", 8)  # in the first row's frame
    reader = reader_of(store, cache)
    rows = []
    for row in ROWS:
        try:
            np.testing.assert_array_equal(reader.read([row, row]).scores[0], truth[row])
        except DamagedError as error:
            rows.append(row)
            assert f"row {row}" in str(error)
    assert len(rows) == 1
    assert rows[0] in range(4, 8)
    assert len(kept(cache)) == 5


def test_a_commit_that_claims_too_much_is_refused_at_once(store, cache, truth):
    commit = store / "commits" / "c.1.0.0"
    claims = (2**60).to_bytes(8, "little") + commit.read_bytes()[8:-4]
    commit.write_bytes(claims + google_crc32c.value(claims).to_bytes(4, "little"))
    reader = reader_of(store, cache)
    with pytest.raises(DamagedError, match="expected at most .* bytes, its commit says 1,152,921,504,606,846,976"):
        reader.read([5])
    np.testing.assert_array_equal(reader.read([0, 20]).scores, truth[[0, 20]])


def test_processes_share_the_work(store, cache, truth, asked):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work() -> None:
        results.put(bool((reader_of(store, cache).read(ROWS).scores == truth).all()))

    children = [context.Process(target=work) for _ in range(4)]
    for child in children:
        child.start()
    assert [results.get() for _ in children] == [True] * 4
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert set(counted(asked).values()) == {1}


def test_threads_and_forked_children_go_on_with_a_reader(store, cache, truth):
    reader, told = reader_of(store, cache), []
    threads = [threading.Thread(target=lambda: told.append((reader.read(ROWS).scores == truth).all())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [True] * 4
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(int((reader.read(ROWS).scores != truth).any())))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_a_full_disk_is_told_once_and_reading_goes_on(store, cache, truth, monkeypatch):
    reader = reader_of(store, cache)
    reader.read([0])

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="no more shards are kept: No space left"):
        np.testing.assert_array_equal(reader.read(ROWS).scores, truth)
    np.testing.assert_array_equal(reader.read(ROWS).scores, truth)
    assert len(kept(cache)) == 1
    assert not list(cache.rglob("*.partial"))


def test_what_cannot_be_is_refused(store, cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="cache_dir: expected a folder"):
        reader_of(store, tmp_path / "file")
    for bound in (-1, 1.5, True):
        with pytest.raises(OptionError, match="cache_dir_bytes: expected a number of bytes"):
            reader_of(store, cache, bound)
    monkeypatch.setattr("labelstore.storage.metadata._known_codecs", lambda *_: False)
    assert isinstance(LabelMapReader(str(store))._rows._source, ZarrSource)
    with pytest.raises(OptionError, match="not laid out as labelstore does it"):
        reader_of(store, cache)


def test_a_store_in_a_folder_is_read_where_it_is(picture_store, cache):
    reader = LabelMapReader(picture_store, cache_dir=cache)
    assert isinstance(reader._rows._source, LocalSource)
    assert not cache.exists()


def test_looking_at_a_store_reads_no_indexes(store, asked, monkeypatch):
    reads: list[int] = []
    fetch = Objects.fetch

    def sized(self, parts):
        found = fetch(self, parts)
        reads.extend(len(data or b"") for part, data in zip(parts, found, strict=True) if part.key.startswith("scores/c"))
        return found

    monkeypatch.setattr(Objects, "fetch", sized)
    reader = LabelMapReader(str(store))
    assert (reader.status() == 1).all()
    assert set(reads) == {4}
    reader.read(ROWS)
    assert max(reads) > 4
