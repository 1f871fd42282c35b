"""Rows on their way into a store: what is refused, what a failed row keeps, and that nothing is committed half."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from labelstore import LabelMapReader, PendingRowError
from labelstore.errors import MapsError
from labelstore.pipelines.shard_rows import ShardRows, cut_text
from labelstore.pipelines.store import ShardWriter
from labelstore.schema import Status


@pytest.fixture
def rows(picture_store, tmp_path):
    """The rows of a shard of 4, of which K is 3 and the map 7x7, of 10 classes or so."""
    copy = shutil.copytree(picture_store, tmp_path / "copy.zarr")
    return ShardRows(ShardWriter(str(copy)), 1)


def maps_for(rows, count):
    shape = (count, rows.info.top_k, *rows.info.map_size)
    classes = np.broadcast_to(np.arange(rows.info.top_k)[None, :, None, None], shape)
    return classes.copy(), np.broadcast_to(3.0 - classes, shape).astype(np.float32)


def test_rows_that_failed_keep_the_fill_values_and_their_reason(rows):
    classes, _ = maps_for(rows, 3)
    arrays = {"classes": classes.astype(np.uint16), "scores": np.zeros(classes.shape, np.uint8)}
    rows.put(0, arrays, ["", "the file is empty", ""], [1, 2, 3], [(5, 6), (7, 8), (9, 10)])
    rows.fail(3, "gone")
    rows.commit()
    reader = LabelMapReader(rows._writer.location)
    start = rows.info.shard_rows(1).start
    assert reader.status()[start : start + 4].tolist() == [Status.DONE, Status.FAILED, Status.DONE, Status.FAILED]
    assert [reader.error(start + at) for at in range(4)] == ["", "the file is empty", "", "gone"]
    assert [reader.image_crc32(start + at) for at in range(4)] == [1, 2, 3, 0]
    assert reader.image_size(range(start, start + 4)).tolist() == [[5, 6], [0, 0], [9, 10], [0, 0]]
    np.testing.assert_array_equal(reader[start].classes, classes[0])
    assert (rows._arrays["classes"][[1, 3]] == 65535).all()


def test_reasons_are_cut_between_characters():
    assert cut_text("short") == b"short"
    assert cut_text("é" * 100) == "é".encode() * 80
    assert cut_text("x" + "é" * 100) == b"x" + "é".encode() * 79
    assert cut_text("\udcff") == b"?"


def test_a_row_without_map_or_reason_is_not_committed(rows):
    before = LabelMapReader(rows._writer.location)[4]
    with pytest.raises(MapsError, match="1 rows have neither a map nor a reason"), rows:
        rows.put_maps(0, *maps_for(rows, 3))
    np.testing.assert_array_equal(LabelMapReader(rows._writer.location)[4].scores, before.scores)


def test_a_row_is_put_once(rows):
    rows.put_maps(0, *maps_for(rows, 2))
    with pytest.raises(MapsError, match="expected each row once, got it twice"):
        rows.put_maps(1, *maps_for(rows, 2))
    with pytest.raises(MapsError, match="twice"):
        rows.fail(0, "gone")
    rows.put_maps(2, *maps_for(rows, 2))
    rows.commit()


def test_an_exception_inside_commits_nothing(rows):
    rows._writer.discard(1)
    rows.put_maps(0, *maps_for(rows, 4))
    with pytest.raises(KeyError), rows:
        raise KeyError
    with pytest.raises(PendingRowError):
        LabelMapReader(rows._writer.location)[4]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, s: (c[:, :2], s), "classes: expected"),
        (lambda c, s: (c, s[:, :, :1]), "scores: expected"),
        (lambda c, s: (c.astype("U3"), s), "classes: expected numbers, got <U3"),
        (lambda c, s: (c - 1, s), "class -1 at k=0, row 0, column 0: expected 0 to"),
        (lambda c, s: (c + 0.5, s), "class 0.5 at k=0, row 0, column 0: expected whole numbers"),
        (lambda c, s: (c * 9999, s), "class 9999 at k=1, row 0, column 0"),
        (lambda c, s: (c * 0, s), "class 0 twice at row 0, column 0"),
        (lambda c, s: (np.full_like(c, 65535), s), "no class at all at row 0, column 0"),
        (lambda c, s: (c, np.where(c == 1, np.nan, s)), "score nan at k=1, row 0, column 0: expected finite"),
        (lambda c, s: (c, np.where(c == 2, np.inf, s)), "score inf at k=2"),
        (lambda c, s: (c, np.where(c == 2, -2e37, s)), "at k=2, row 0, column 0: expected finite"),
    ],
)
def test_maps_that_are_none_are_refused_and_named(rows, spoil, message):
    classes, scores = maps_for(rows, 2)
    with pytest.raises(MapsError, match=message) as refused:
        rows.put_maps(1, *spoil(classes, scores))
    assert rows.ids[1] in str(refused.value) or "expected [" in str(refused.value) or "numbers" in str(refused.value)


def test_rows_outside_the_shard_are_refused(rows):
    with pytest.raises(MapsError, match="expected rows 0 to 3, got 2 to 4"):
        rows.put_maps(2, *maps_for(rows, 3))


def test_logits_are_checked_too(rows):
    shape = (1, rows.info.num_classes, *rows.info.map_size)
    with pytest.raises(MapsError, match=r"logits: expected \[n, "):
        rows.put_logits(0, np.zeros((1, 2, 3, 4)))
    with pytest.raises(MapsError, match=f"{rows.ids[3]}: logits: expected finite"):
        rows.put_logits(3, np.full(shape, np.nan))
