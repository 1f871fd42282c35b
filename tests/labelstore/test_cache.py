"""The decoded cache: the same maps as without it, whatever has happened to its file."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from labelstore import CacheError, LabelMapReader, OptionError
from labelstore.pipelines.store import ShardWriter
from labelstore.schema import Status

ROWS = list(range(21))


@pytest.fixture
def copy(picture_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(picture_store, tmp_path / "copy.zarr"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def same(reader: LabelMapReader, truth: LabelMapReader, rows: list[int] = ROWS) -> bool:
    ours, theirs = reader.read(rows), truth.read(rows)
    return bool((ours.classes == theirs.classes).all() and (ours.scores == theirs.scores).all())


def chunk_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames that are decoded from now on."""
    decoded: list[int] = []
    from labelstore.storage import direct, local

    plain_one, plain_many = local.decode_usual, direct.decode_frames
    monkeypatch.setattr(local, "decode_usual", lambda data: decoded.append(len(data)) or plain_one(data))
    monkeypatch.setattr(
        direct,
        "decode_frames",
        lambda frames, size, out: decoded.extend([size] * len(frames)) or plain_many(frames, size, out),
    )
    return decoded


def test_maps_are_decoded_once(picture_store, folder, monkeypatch):
    truth = LabelMapReader(picture_store)
    assert same(LabelMapReader(picture_store, cache=folder), truth)
    theirs = truth.read([4, 20, 4]).scores
    decoded = chunk_reads(monkeypatch)
    again = LabelMapReader(picture_store, cache=folder)
    np.testing.assert_array_equal(again.read([4, 20, 4]).scores, theirs)
    np.testing.assert_array_equal(again[20].scores, theirs[1])
    np.testing.assert_array_equal(again["blue/4.png"].scores, theirs[0])
    assert decoded == []


def test_soft_labels_are_the_same(picture_store, folder):
    boxes = np.random.default_rng(0).uniform(0, 1, (21, 4))
    truth, cached = LabelMapReader(picture_store), LabelMapReader(picture_store, cache=folder)
    for _ in range(2):
        np.testing.assert_array_equal(cached.pool(ROWS, boxes), truth.pool(ROWS, boxes))
    assert cached.ids[3] == truth.ids[3]
    assert cached.image_crc32(3) == truth.image_crc32(3)
    np.testing.assert_array_equal(cached.status(), truth.status())


def test_every_flipped_bit_of_the_cache_is_found(picture_store, folder):
    truth, cached = LabelMapReader(picture_store), LabelMapReader(picture_store, cache=folder)
    cached.read(ROWS)
    file = cache_file(folder)
    original = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(original) * 8, 300).tolist():
        with file.open("r+b") as out:
            out.seek(place // 8)
            out.write(bytes([original[place // 8] ^ (1 << place % 8)]))
        assert same(cached, truth)
        assert file.read_bytes() == original  # written again


@pytest.mark.parametrize("content", [b"", b"short", bytes(100_000), os.urandom(100_000)])
def test_whatever_lies_in_the_file(picture_store, folder, content):
    truth = LabelMapReader(picture_store)
    LabelMapReader(picture_store, cache=folder).read(ROWS)
    cache_file(folder).write_bytes(content)
    cached = LabelMapReader(picture_store, cache=folder)
    assert same(cached, truth)
    assert same(cached, truth)


def test_records_in_the_wrong_place_do_not_count(picture_store, folder):
    cached, truth = LabelMapReader(picture_store, cache=folder), LabelMapReader(picture_store)
    cached.read(ROWS)
    file = cache_file(folder)
    size = file.stat().st_size // 21
    data = file.read_bytes()
    file.write_bytes(data[size * 5 : size * 6] + data[size:])
    assert same(cached, truth)


def test_a_shard_that_is_written_again_is_read_again(copy, folder):
    LabelMapReader(copy, cache=folder).read(ROWS)
    writer, packed = ShardWriter(str(copy)), LabelMapReader(copy).read_packed([4, 5, 6, 7])
    packed["classes"] = packed["classes"][::-1]
    done = {"status": np.full(4, Status.DONE, np.uint8)}
    writer.write(1, {**writer.empty_rows(1), **packed, **done})
    truth = LabelMapReader(copy)
    assert same(LabelMapReader(copy, cache=folder), truth)
    np.testing.assert_array_equal(truth.read([4]).classes[0], packed["classes"][0])


def test_pending_rows_are_pending_though_they_are_in_the_cache(copy, folder):
    LabelMapReader(copy, cache=folder).read(ROWS)
    (copy / "commits" / "c.1.0.0").unlink()
    with pytest.raises(KeyError, match="pending"):
        LabelMapReader(copy, cache=folder).read([5])


@pytest.mark.parametrize("most", [0, 1, 5000])
def test_the_file_is_bounded(picture_store, folder, most):
    cached, truth = LabelMapReader(picture_store, cache=folder, cache_bytes=most), LabelMapReader(picture_store)
    for _ in range(2):
        assert same(cached, truth)
    assert cache_file(folder).stat().st_size <= most
    assert cached._rows._source.capacity == most // (cached._rows._source._size)


@pytest.mark.parametrize("wrong", [-1, 1.5, "1 GB", True])
def test_bounds_that_are_none(picture_store, folder, wrong):
    with pytest.raises(OptionError, match="cache_bytes: expected"):
        LabelMapReader(picture_store, cache=folder, cache_bytes=wrong)


def test_a_full_disk_stops_the_cache_and_not_the_reader(picture_store, folder, monkeypatch):
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", full)
    cached, truth = LabelMapReader(picture_store, cache=folder), LabelMapReader(picture_store)
    with pytest.warns(UserWarning, match="the cache grows no more: No space left"):
        assert same(cached, truth)
    assert same(cached, truth)  # and says so once


def test_folders_that_cannot_be_used(picture_store, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="expected a folder") as caught:
        LabelMapReader(picture_store, cache=tmp_path / "file")
    assert isinstance(caught.value, OSError)
    (tmp_path / "cache").mkdir(mode=0o700)
    name = LabelMapReader(picture_store, cache=tmp_path / "other")._rows._source._file.name
    (tmp_path / "cache" / name).symlink_to(tmp_path / "file")
    with pytest.raises(CacheError):  # nobody makes us write to a file of his choice
        LabelMapReader(picture_store, cache=tmp_path / "cache")
    assert (tmp_path / "file").read_text() == "x"


def _read_all(reader: LabelMapReader, results) -> None:
    results.put(reader.read(ROWS).scores)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_the_file(picture_store, folder, method):
    truth = LabelMapReader(picture_store).read(ROWS).scores
    context = multiprocessing.get_context(method)
    results, cached = context.Queue(), LabelMapReader(picture_store, cache=folder)
    children = [context.Process(target=_read_all, args=(cached, results)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        np.testing.assert_array_equal(results.get(timeout=60), truth)
    for child in children:
        child.join()
    assert len(list(folder.iterdir())) == 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cached)).read(ROWS).scores, truth)
