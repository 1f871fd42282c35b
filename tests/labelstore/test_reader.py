"""`LabelMapReader` on a finished store: the API, its errors, and sharing between threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from damage import flip

import labelstore
from labelstore import (
    ClassMapError,
    DamagedError,
    FailedRowError,
    FormatError,
    KeysError,
    LabelMap,
    LabelMapReader,
    MissingExtraError,
    OptionError,
    PendingRowError,
    RowIndexError,
    StoreNotFoundError,
    UnknownIdError,
)
from labelstore.pipelines.store import ShardWriter
from labelstore.storage.budget import BUDGET
from labelstore.storage.local import LocalSource
from labelstore.storage.ranges import RangeSource
from labelstore.storage.remote import ZarrSource

WHOLE = (0.0, 0.0, 1.0, 1.0)
BLUE, YELLOW = 4, 5


@pytest.fixture
def reader(picture_store: Path) -> LabelMapReader:
    return LabelMapReader(picture_store)


@pytest.fixture
def copy(picture_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(picture_store, tmp_path / "copy.zarr"))


def test_what_a_reader_says_of_its_store(reader):
    assert len(reader) == 21
    assert reader.ids[0] == "blue/0.png"
    assert list(reader.ids)[-1] == reader.ids[20] == "red/6.png"
    assert reader.ids[1:3] == ["blue/1.png", "blue/2.png"]
    assert "blue/0.png" in reader
    assert "blue/7.png" not in reader
    assert 3 not in reader
    assert (reader.num_classes, reader.top_k, reader.map_size) == (8, 3, (7, 7))
    assert reader.annotator.name == "toy_annotators:colours"
    assert reader.annotator.input_size == 56
    assert reader.class_names[BLUE] == "blue"
    assert reader.info.class_ids[BLUE] == "colour-blue"
    assert reader.info.target_names == ("blue", "green", "red")
    assert reader.targets.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert (reader.status() == labelstore.Status.DONE).all()
    assert "21 rows" in repr(reader)


def test_one_map(reader):
    one = reader["blue/0.png"]
    assert isinstance(one, LabelMap)
    assert (one.classes.shape, one.classes.dtype) == ((3, 7, 7), np.uint16)
    assert (one.scores.shape, one.scores.dtype) == ((3, 7, 7), np.float32)
    assert (one.classes[0, :, :3] == BLUE).all()
    assert (one.classes[0, :, 4:] == YELLOW).all()
    np.testing.assert_array_equal(reader[0].scores, one.scores)
    np.testing.assert_array_equal(reader[np.int64(0)].scores, one.scores)


def test_many_maps_in_the_order_of_the_keys(reader):
    keys = ["red/3.png", "blue/0.png", "green/6.png", "blue/0.png"]
    many = reader.read(keys)
    assert many.classes.shape == (4, 3, 7, 7)
    for place, key in enumerate(keys):
        np.testing.assert_array_equal(many.classes[place], reader[key].classes)
        np.testing.assert_array_equal(many.scores[place], reader[key].scores)


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda keys: np.array(keys, object)])
def test_ids_and_rows_name_the_same(reader, make):
    rows = [20, 0, 5, 5]
    by_row = reader.read(make(rows) if make is not tuple else tuple(rows))
    by_id = reader.read(make([reader.ids[row] for row in rows]))
    np.testing.assert_array_equal(by_row.classes, by_id.classes)


def test_no_keys_give_no_rows(reader):
    assert reader.read([]).classes.shape == (0, 3, 7, 7)
    assert reader.pool([], np.empty((0, 4))).shape == (0, 8)


def test_boxes_get_their_own_labels(reader):
    soft = reader.pool(["blue/0.png"] * 4, [(0, 0, 0.4, 1), (0.6, 0, 1, 1), (0.4, 1, 0, 0), WHOLE])
    assert (soft.shape, soft.dtype) == ((4, 8), np.float32)
    assert soft.argmax(axis=1)[:3].tolist() == [BLUE, YELLOW, BLUE]
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(soft[0], soft[2])  # mirrored: the same region
    hot = reader.pool([0], [WHOLE], temperature=10.0)
    assert hot.max() < soft[3].max()


@pytest.mark.parametrize(
    ("keys", "error", "builtin", "words"),
    [
        (["blue/9.png"], UnknownIdError, KeyError, "'blue/9.png' among 21; similar: 'blue/"),
        (["blue/0.png\0"], UnknownIdError, KeyError, "no image id"),
        (["blue/0.png" + "x" * 100], UnknownIdError, KeyError, "no image id"),
        ([""], UnknownIdError, KeyError, "no image id ''"),
        ([21], RowIndexError, IndexError, r"row 21: expected 0\.\.20"),
        ([-1], RowIndexError, IndexError, "row -1"),
        ("blue/0.png", KeysError, TypeError, "expected a list"),
        (5, KeysError, TypeError, "expected a list"),
        ([1.5], KeysError, TypeError, "got float"),
        ([True], KeysError, TypeError, "got bool"),
        (["blue/0.png", 1], KeysError, TypeError, "all image ids"),
        ([[1, 2]], KeysError, TypeError, r"shape \(1, 2\)"),
        ([None], KeysError, TypeError, "got NoneType"),
    ],
)
def test_bad_keys_are_refused(reader, keys, error, builtin, words):
    with pytest.raises(error, match=words) as caught:
        reader.read(keys)
    assert isinstance(caught.value, builtin)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), error)


def test_boxes_and_keys_of_different_length(reader):
    with pytest.raises(ValueError, match=r"expected shape \(2, 4\)"):
        reader.pool([0, 1], [WHOLE])


@pytest.mark.parametrize("compiled", [True, False])
def test_class_maps_choose_and_order_the_classes(picture_store, compiled):
    reader = LabelMapReader(picture_store, compiled=compiled)
    boxes = np.random.default_rng(0).uniform(0, 1, (21, 4))
    whole, columns = reader.pool(range(21), boxes), [5, 2, 4, 2]
    part = reader.pool(range(21), boxes, class_map=columns)
    assert (part.shape, part.dtype) == ((21, 4), np.float32)
    np.testing.assert_allclose(part, whole[:, columns] / whole[:, columns].sum(axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(ClassMapError, match=r"class_map\[1\]: expected a class of the store, 0\.\.7, got 8"):
        reader.pool([0], [WHOLE], class_map=[0, 8])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("store", ["picture_store", "spectral_store"])
def test_probabilities_of_several_classes_of_one_column_are_added(store, request, temperature):
    reader = LabelMapReader(request.getfixturevalue(store))
    boxes = np.random.default_rng(0).uniform(0, 1, (21, 4))
    each = reader.pool(range(21), boxes, temperature, class_map=[5, 2, 7, 4])
    for columns in ([[5, 2], [7], [4]], [[5, 2], 7, 4], np.array([[5, 2], [7, -1], [4, -1]])):
        added = reader.pool(range(21), boxes, temperature, class_map=columns)
        assert (added.shape, added.dtype) == ((21, 3), np.float32)
        np.testing.assert_allclose(added, np.stack([each[:, 0] + each[:, 1], each[:, 2], each[:, 3]], axis=1), atol=1e-6)
        np.testing.assert_allclose(added.sum(axis=1), 1, atol=1e-6)


def test_both_ways_of_pooling_and_any_threads_agree(picture_store):
    boxes = np.random.default_rng(0).uniform(0, 1, (300, 4))
    rows = np.random.default_rng(1).integers(0, 21, 300)
    truth = LabelMapReader(picture_store, compiled=False, threads=1).pool(rows, boxes)
    for compiled in (True, False):
        for threads in (None, 1, 3):
            reader = LabelMapReader(picture_store, compiled=compiled, threads=threads)
            np.testing.assert_allclose(reader.pool(rows, boxes), truth, atol=1e-6)
            np.testing.assert_allclose(reader.pool(rows, np.asfortranarray(boxes)), truth, atol=1e-6)
            one = [reader.pool([row], [box])[0] for row, box in zip(rows[:9].tolist(), boxes, strict=False)]
            np.testing.assert_allclose(one, truth[:9], atol=1e-6)


def test_compiled_pooling_is_an_extra(picture_store, monkeypatch):
    monkeypatch.setattr("labelstore.encodings.topk.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[fast\]'"):
        LabelMapReader(picture_store, compiled=True)
    assert LabelMapReader(picture_store).pool([0], [WHOLE]).shape == (1, 8)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_threads_that_are_none(picture_store, wrong):
    with pytest.raises(OptionError, match="threads: expected a whole number"):
        LabelMapReader(picture_store, threads=wrong)


def test_packed_maps_decode_to_the_maps(reader):
    rows = [3, 20, 3]
    packed, maps = reader.read_packed(rows), reader.read(rows)
    assert {name: part.dtype for name, part in packed.items()} == {
        "classes": np.uint16,
        "scores": np.uint8,
        "score_range": np.float32,
    }
    top, step = packed["score_range"].T[:, :, None, None, None]
    np.testing.assert_array_equal(packed["classes"], maps.classes)
    levels = np.cumsum(packed["scores"].astype(np.float32), axis=1)
    np.testing.assert_allclose(top - step * levels, maps.scores, rtol=1e-6)


def test_arrays_may_be_written_to(reader):
    for maps in (reader[2], reader.read([2]), reader.read([2, 3])):
        maps.classes[...] = 0
        maps.scores[...] = 0
    assert reader[2].classes.any()


def test_pending_rows(copy):
    (copy / "commits" / "c.1.0.0").unlink()
    reader = LabelMapReader(copy)
    assert reader.status([3, 4]).tolist() == [1, 0]
    reader.read([0, 3])
    with pytest.raises(PendingRowError, match=r"row 5 \('blue/5.png'\) is pending") as caught:
        reader.read([0, 5])
    assert isinstance(caught.value, KeyError)
    with pytest.raises(PendingRowError):
        reader.error(5)


def test_rows_appear_when_their_shard_is_committed(copy):
    commit = copy / "commits" / "c.1.0.0"
    aside = commit.rename(copy.parent / "aside")
    reader = LabelMapReader(copy)
    with pytest.raises(PendingRowError):
        reader.read([5])
    aside.rename(commit)
    assert reader.read([5]).classes.shape == (1, 3, 7, 7)


def test_failed_rows_say_why(make_store, tmp_path, pictures):
    images = Path(shutil.copytree(pictures, tmp_path / "images"))
    (images / "red" / "2.png").write_bytes(b"no picture")
    reader = LabelMapReader(make_store(images).store)
    with pytest.raises(FailedRowError, match=r"'red/2.png'.*cannot identify image") as caught:
        reader.pool(["red/1.png", "red/2.png"], [WHOLE, WHOLE])
    assert isinstance(caught.value, KeyError)
    assert "cannot identify" in reader.error("red/2.png")
    assert reader.error("red/1.png") == ""
    assert reader.status(["red/2.png"]) == [labelstore.Status.FAILED]


def test_image_crc32_is_of_the_file(reader, pictures):
    import zlib

    assert reader.image_crc32("red/3.png") == zlib.crc32((pictures / "red/3.png").read_bytes())


def test_image_size_is_asked_for_by_any_keys(reader):
    assert reader.image_size(["red/3.png", "blue/0.png"]).tolist() == reader.image_size([17, 0]).tolist() == [[60, 40]] * 2
    assert reader.image_size([]).shape == (0, 2)
    with pytest.raises(UnknownIdError):
        reader.image_size(["none.png"])


@pytest.fixture
def spectral_copy(spectral_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(spectral_store, tmp_path / "spectral.zarr"))


def test_every_flipped_bit_of_a_spectral_file_is_found(spectral_copy):
    file = spectral_copy / "spectra" / "c.2.0"
    original, rows = file.read_bytes(), [8, 9, 10, 11]
    for place in np.random.default_rng(0).integers(0, len(original) * 8, 1000).tolist():
        flip(file, place // 8, place % 8)
        with pytest.raises(DamagedError, match="c.2.0"):
            LabelMapReader(spectral_copy).pool(rows, [WHOLE] * 4)
        file.write_bytes(original)


def test_damage_to_a_spectral_map_names_the_image_the_file_and_the_place(spectral_copy):
    file = spectral_copy / "spectra" / "c.2.0"
    flip(file, 20)
    for read in (lambda reader: reader.read([10, 8]), lambda reader: reader[8]):
        with pytest.raises(DamagedError, match=r"row 8 \('green/1.png'\).*c\.2\.0.*offset 4.*crc32c"):
            read(LabelMapReader(spectral_copy))
    LabelMapReader(spectral_copy).read([9])
    data = file.read_bytes()
    file.write_bytes(data[:-3])
    with pytest.raises(DamagedError, match="not the file that was committed"):
        LabelMapReader(spectral_copy).read([8])


def test_spectral_maps_read_the_same_by_every_way(spectral_store, tmp_path):
    rows, boxes = [3, 20, 3, 0], [WHOLE, (0, 0, 0.5, 1), (0.5, 0, 0.2, 1), (0.1, 0.1, 0.2, 0.9)]
    reader = LabelMapReader(spectral_store)
    expected, maps = reader.pool(rows, boxes), reader.read(rows)
    others = {
        "NumPy": LabelMapReader(spectral_store, compiled=False),
        "one thread": LabelMapReader(spectral_store, threads=1),
        "cache, first": LabelMapReader(spectral_store, cache=tmp_path),
        "cache, again": LabelMapReader(spectral_store, cache=tmp_path),
        "zarr": LabelMapReader(spectral_store),
        "pickled": pickle.loads(pickle.dumps(reader)),
    }
    others["zarr"]._rows._source = ZarrSource(
        str(spectral_store), reader.info, reader._rows._source._arrays, reader._rows._source._committed
    )
    for name, other in others.items():
        np.testing.assert_allclose(other.pool(rows, boxes), expected, atol=1e-6, err_msg=name)
        found = other.read(rows)
        np.testing.assert_array_equal(found.classes, maps.classes, err_msg=name)
        np.testing.assert_array_equal(found.scores, maps.scores, err_msg=name)
        np.testing.assert_array_equal(other[3].scores, maps.scores[0], err_msg=name)


def test_the_spectral_store_names_what_is_in_the_picture(spectral_store):
    reader = LabelMapReader(spectral_store)
    left, right = reader.pool(["blue/0.png"] * 2, [(0, 0, 0.4, 1), (0.6, 0, 1, 1)])
    assert (left.argmax(), right.argmax()) == (BLUE, YELLOW)


@pytest.mark.parametrize("name", ["classes/c.2.0.0.0", "scores/c.2.0.0.0"])
def test_every_flipped_bit_of_a_shard_file_is_found_or_harmless(copy, name):
    file = copy / name
    original, rows = file.read_bytes(), [8, 9, 10, 11]
    truth = LabelMapReader(copy).read(rows)
    rng = np.random.default_rng(0)
    found = 0
    for place in rng.integers(0, len(original) * 8, 500).tolist():  # twice: 1,000 flips
        flip(file, place // 8, place % 8)
        try:
            seen = LabelMapReader(copy).read(rows)
        except DamagedError as error:
            assert str(file) in str(error)
            found += 1
        else:
            np.testing.assert_array_equal(seen.classes, truth.classes)
            np.testing.assert_array_equal(seen.scores, truth.scores)
        file.write_bytes(original)
    assert found > 485


def test_damage_names_the_image_the_file_and_the_place(copy):
    file = copy / "classes" / "c.2.0.0.0"
    flip(file, 20)
    with pytest.raises(DamagedError, match=r"row 8 \('green/1.png'\).*c\.2\.0\.0\.0.*offset 4") as caught:
        LabelMapReader(copy).read([10, 8])
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("name", ["classes/c.2.0.0.0", "scores/c.2.0.0.0", "score_range/c.2.0", "status/c.2", "errors/c.2.0"])
def test_files_that_are_cut_or_gone_are_damage(copy, name):
    file = copy / name
    data = file.read_bytes()
    file.write_bytes(data[:-3])
    with pytest.raises(DamagedError, match="not the file that was committed"):
        LabelMapReader(copy).read([8])
    file.unlink()
    with pytest.raises(DamagedError, match="missing, though shard 2 is committed"):
        LabelMapReader(copy).read([8])
    LabelMapReader(copy).read([0])


def test_another_writers_file_is_not_served(copy):
    shutil.copy(copy / "scores" / "c.1.0.0.0", copy / "scores" / "c.2.0.0.0")
    with pytest.raises(DamagedError, match="not the file that was committed"):
        LabelMapReader(copy).read([8])


def test_an_open_reader_survives_files_that_are_replaced(copy):
    reader = LabelMapReader(copy)
    before = reader.read([8])
    for name in ("classes", "scores"):
        file = copy / name / "c.2.0.0.0"
        file.unlink()
        file.write_bytes(b"other")
    np.testing.assert_array_equal(reader.read([8]).scores, before.scores)


def test_a_file_cut_short_under_an_open_reader_is_an_error(copy):
    reader = LabelMapReader(copy)
    reader.read([8])
    with (copy / "classes" / "c.2.0.0.0").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(DamagedError, match="damaged"):
        reader.read([8])


def test_a_file_that_was_closed_and_replaced_is_not_served(copy, monkeypatch):
    monkeypatch.setattr(BUDGET, "most", lambda: 2)
    reader = LabelMapReader(copy)
    reader.read([8])
    reader.read([0])  # now shard 2 is closed
    shutil.copy(copy / "scores" / "c.1.0.0.0", copy / "scores" / "c.2.0.0.0")
    with pytest.raises(DamagedError, match="not the file that was committed"):
        reader.read([8])
    (copy / "scores" / "c.2.0.0.0").unlink()
    with pytest.raises(DamagedError, match="missing, though shard 2 is committed"):
        reader.read([9])


def test_classes_that_a_foreign_writer_made_up_are_damage(copy):
    writer, packed = ShardWriter(str(copy)), LabelMapReader(copy).read_packed([4, 5, 6, 7])
    packed["classes"][2, 1, 3, 3] = 8
    done = {"status": np.full(4, labelstore.Status.DONE, np.uint8)}
    writer.write(1, {**writer.empty_rows(1), **packed, **done})
    reader = LabelMapReader(copy)
    for ask in (
        lambda: reader.read([5, 6]),
        lambda: reader[6],
        lambda: reader.pool([6], [WHOLE]),
        lambda: reader.read_packed([6]),
    ):
        with pytest.raises(DamagedError, match=r"row 6 \('blue/6.png'\): classes: expected 0\.\.7, found 8"):
            ask()
    reader.read([4, 5, 7])


def test_threads_share_a_reader(reader):
    truth = reader.read(range(21)).scores

    def work(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 21, 16)
        return bool((reader.read(rows).scores == truth[rows]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(100)))


def _read_in_child(reader: LabelMapReader, rows: list[int], results) -> None:
    results.put(reader.read(rows).scores)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_a_reader(reader, method):
    truth = reader.read([3, 20]).scores  # the parent has read before it forks
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(reader, [3, 20], results))
    child.start()
    np.testing.assert_array_equal(results.get(timeout=60), truth)
    child.join()
    assert child.exitcode == 0


def _pool_in_child(reader: LabelMapReader, results) -> None:
    results.put([reader.pool([row, 3], [WHOLE, WHOLE]) for row in range(21)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_in_the_middle_of_reads_do_not_hang(picture_store):
    truth = [LabelMapReader(picture_store).pool([row, 3], [WHOLE, WHOLE]) for row in range(21)]
    context = multiprocessing.get_context("fork")
    done = threading.Event()

    def keep_opening() -> None:
        while not done.is_set():
            shared.read([int(np.random.default_rng().integers(21))])

    shared = LabelMapReader(picture_store)
    threads = [threading.Thread(target=keep_opening) for _ in range(7)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            results = context.Queue()
            child = context.Process(target=_pool_in_child, args=(shared, results))
            child.start()
            np.testing.assert_array_equal(results.get(timeout=60), truth)
            child.join(60)
            assert child.exitcode == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_forked_children_share_what_the_parent_has_opened(reader, monkeypatch):
    reader.read(range(21))
    opened: list[int] = []
    monkeypatch.setattr("labelstore.storage.local.DataFile", lambda path: opened.append(1))
    child = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: child)
    assert reader.read(range(21)).classes.shape[0] == 21
    assert not opened


def test_readers_can_be_pickled(reader):
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read([4]).scores, reader.read([4]).scores)


def test_a_read_opens_each_shard_once_and_reads_each_chunk_once(picture_store, monkeypatch):
    reads: list[int] = []
    plain = os.pread
    monkeypatch.setattr("os.pread", lambda fd, length, offset: reads.append(length) or plain(fd, length, offset))
    reader = LabelMapReader(picture_store)
    reads.clear()
    reader.read([0, 1, 2, 3])
    # The commit, the ids that it seals, 7 files' ends, 2 indexes, 2 arrays that stay, 2 chunks a row.
    assert len(reads) == 1 + 1 + 7 * 2 + 2 + 2 + 2 * 4
    reads.clear()
    reader.read([3, 0])
    assert len(reads) == 4
    reads.clear()
    reader[3]
    assert len(reads) == 2


def test_missing_stores(tmp_path):
    with pytest.raises(StoreNotFoundError, match="no store here") as caught:
        LabelMapReader(tmp_path / "none.zarr")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(StoreNotFoundError, match="no store here"):
        LabelMapReader(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="without zarr.json"):
        LabelMapReader(tmp_path)
    with pytest.raises(FormatError, match="found a file"):
        LabelMapReader(tmp_path / "file")


def test_file_urls_are_local(picture_store):
    reader = LabelMapReader(f"file://{picture_store}")
    assert isinstance(reader._rows._source, LocalSource)
    assert len(reader) == 21


@pytest.fixture(params=[RangeSource, ZarrSource])
def behind_a_url(request, monkeypatch) -> type:
    """Folders are opened as URLs are: by ranges, or as if somebody else had laid the store out."""
    monkeypatch.setattr("labelstore.storage.open.local_path", lambda location: None)
    monkeypatch.setattr("labelstore.storage.ranges.RangeSource", request.param)
    return request.param


def test_a_url_gives_what_a_folder_gives(reader, picture_store, behind_a_url):
    slow = LabelMapReader(str(picture_store))
    assert isinstance(slow._rows._source, behind_a_url)
    rows = [20, 3, 3, 8]
    np.testing.assert_array_equal(slow.read(rows).classes, reader.read(rows).classes)
    np.testing.assert_array_equal(slow.read(rows).scores, reader.read(rows).scores)
    np.testing.assert_array_equal(slow.pool([20], [WHOLE]), reader.pool([20], [WHOLE]))
    np.testing.assert_array_equal(slow.status(), reader.status())
    assert list(slow.ids) == list(reader.ids)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(slow)).read([1]).scores, reader.read([1]).scores)


def test_damage_is_found_behind_a_url_too(copy, behind_a_url):
    (copy / "commits" / "c.0.0.0").unlink()
    flip(copy / "classes" / "c.2.0.0.0", 20)
    (copy / "scores" / "c.3.0.0.0").write_bytes(b"short")
    (copy / "scores" / "c.4.0.0.0").unlink()
    reader = LabelMapReader(str(copy))
    with pytest.raises(DamagedError, match=r"'green/1.png'"):
        reader.read([9, 8])
    with pytest.raises(DamagedError, match="not the file that was committed"):
        reader.read([12])
    with pytest.raises(DamagedError, match="missing"):
        reader.read([16])
    with pytest.raises(PendingRowError):
        reader.read([0])
    assert reader.read([4]).classes.shape == (1, 3, 7, 7)
