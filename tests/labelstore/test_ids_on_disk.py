"""Ids that are looked up on the disk: as those in memory, for any order of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import SERIAL

from labelstore import LabelMapReader, UnknownIdError
from labelstore import fetch as fetching
from labelstore.ids import ImageIds, pack_ids
from labelstore.ids_on_disk import IdsOnDisk
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings
from labelstore.records import Extent
from labelstore.storage import open_source

names = st.lists(st.text("ab/é.", min_size=1, max_size=4), min_size=1, max_size=60, unique=True)


class Matrix:
    """A source that has ids alone, and counts how often it is asked."""

    where = "here"

    def __init__(self, ids: list[str], size: int) -> None:
        self._matrix, self._size, self.asked = pack_ids(ids), size, 0

    def index_rows(self, spec, shard):
        self.asked += 1
        return self._matrix[shard * self._size : (shard + 1) * self._size]


@pytest.fixture(scope="module")
def info(picture_store):
    return open_source(picture_store)[1]


def table(info, ids: list[str], size: int = 4) -> tuple[IdsOnDisk, Matrix]:
    source = Matrix(ids, size)
    width = pack_ids(ids).shape[1]
    return IdsOnDisk(source, replace(info, num_rows=len(ids), id_bytes=width, shard_size=size, extents=())), source


@given(names, names, st.booleans())
def test_as_those_in_memory(info, ids, others, in_order):
    if in_order:
        ids = sorted(ids, key=str.encode)
    disk, _ = table(info, ids)
    memory = ImageIds(pack_ids(ids), "here")
    assert list(disk) == list(memory) == ids
    assert [disk[row] for row in range(len(ids))] == ids
    assert disk[1:3] == ids[1:3]
    assert disk[-1] == ids[-1]
    wanted = [*ids, *others, "", "a\0", "a" * 99, "\ud800"]
    rows, known = disk.find(wanted)
    expected, there = memory.find(wanted)
    np.testing.assert_array_equal(known, there)
    np.testing.assert_array_equal(rows[known], expected[there])
    assert [key in disk for key in wanted] == there.tolist()


def test_few_shards_are_asked_for_an_id(info):
    ids = [f"{number:05}" for number in range(4 * 1000)]
    disk, source = table(info, ids)
    assert disk.row("01234") == 1234
    assert source.asked <= 12
    before = source.asked
    assert disk.row("01235") == 1235
    assert source.asked == before
    assert "x" not in disk
    assert source.asked >= 1000
    before = source.asked
    assert "y" not in disk  # all have been seen, in order: nothing is looked for everywhere again
    assert source.asked - before <= 12


def test_an_unknown_id_is_told_with_those_like_it(info):
    disk, _ = table(info, [f"class/{number:05}.png" for number in range(100)])
    with pytest.raises(UnknownIdError, match=r"no image id 'class/00012.jpg' among 100; similar: .*class/00012.png"):
        disk.rows(["class/00003.png", "class/00012.jpg"])
    with pytest.raises(IndexError, match="row 100: expected 0..99"):
        disk[100]


@pytest.fixture
def grown(pictures, tmp_path) -> Path:
    """A store of two runs, with holes between them."""
    import shutil

    settings = Settings(model="toy_annotators:colours", top_k=3, encoding="topk")
    annotate(pictures, str(tmp_path / "grown.zarr"), settings, SERIAL, Observer())
    both = Path(shutil.copytree(pictures, tmp_path / "both"))
    shutil.copy(both / "red" / "0.png", both / "a new one.png")
    annotate(both, str(tmp_path / "grown.zarr"), settings, SERIAL, Observer(), extend=True)
    return tmp_path / "grown.zarr"


def test_a_reader_of_a_large_store_looks_them_up(grown, monkeypatch):
    small = LabelMapReader(grown)
    monkeypatch.setattr(fetching, "MOST_ID_BYTES", 0)
    large = LabelMapReader(grown)
    assert isinstance(large.ids, IdsOnDisk)
    assert len(open_source(grown)[1].extents) == 2
    assert isinstance(open_source(grown)[1].extents[0], Extent)
    assert list(large.ids) == list(small.ids)
    keys = [key for key in small.ids if key]
    np.testing.assert_array_equal(large.ids.rows(keys), small.ids.rows(keys))
    np.testing.assert_array_equal(large.read(keys).scores, small.read(keys).scores)
    assert "" not in large
    with pytest.raises(UnknownIdError):
        large["red/nothing.png"]
