"""Stores out of stores: merged, and parts of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from damage import flip
from folders import store_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import paint
from runs import SERIAL, Heard

from labelstore import FailedRowError, LabelMapReader
from labelstore.errors import DamagedError, ImagesError, OptionError, StoreMismatchError, UnknownIdError
from labelstore.pipelines.exchange import combining, store_rows
from labelstore.pipelines.exchange.combining import merge_stores, subset_store
from labelstore.pipelines.exchange.layout import Chosen, PickedRows, WholeShard, lay_out, picked
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.new_store import named_annotator
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store
from labelstore.records import Extent
from labelstore.schema import StoreInfo


def subset(store, dest, *patterns, observer=None, **more):
    return subset_store(str(store), str(dest), Selection(patterns=patterns), SERIAL, observer or Observer(), **more)


def merge(stores, dest, observer=None, **more):
    return merge_stores([str(store) for store in stores], str(dest), SERIAL, observer or Observer(), **more)


def require_equal(part, whole):
    """Every row of a store is, as it is encoded, what another store has for the same image."""
    part, whole = LabelMapReader(part), LabelMapReader(whole)
    ids = [image_id for image_id in part.ids if image_id]
    one, other = part.read_packed(ids), whole.read_packed(ids)
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])
    names = [None if found.info.target_names is None else np.array(found.info.target_names) for found in (part, whole)]
    mine, theirs = part.targets[part.ids.rows(ids)], whole.targets[whole.ids.rows(ids)]
    if None in [type(found) for found in names] or names[0] is None:
        np.testing.assert_array_equal(mine, theirs)
    else:
        np.testing.assert_array_equal(names[0][mine], names[1][theirs])
    np.testing.assert_array_equal(part.image_size(ids), whole.image_size(ids))
    assert [part.image_crc32(image_id) for image_id in ids] == [whole.image_crc32(image_id) for image_id in ids]


def test_whole_shards_are_copied_and_nothing_is_decoded(store, tmp_path, monkeypatch):
    ids = list(LabelMapReader(store).ids)
    (tmp_path / "ids.txt").write_text("\n".join(ids[4:12]))  # shards 1 and 2 of four rows

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(store_rows.StoreRows, "_put_picked", fail)
    selection = Selection(str(tmp_path / "ids.txt"))
    subset_store(str(store), str(tmp_path / "s.zarr"), selection, SERIAL, Observer())
    monkeypatch.undo()
    before, after = store_contents(store), store_contents(tmp_path / "s.zarr")
    copied = [key for key in before if key.split("/")[-1].startswith(("c.1", "c.2")) and not key.startswith(("ids", "targets"))]
    assert copied
    for key in copied:
        array, name = key.split("/")
        _, shard, *rest = name.split(".")
        assert after[f"{array}/{'.'.join(['c', str(int(shard) - 1), *rest])}"] == before[key], key
    assert list(LabelMapReader(tmp_path / "s.zarr").ids) == ids[4:12]
    assert LabelMapReader(tmp_path / "s.zarr").info.shard_size == 4
    require_equal(tmp_path / "s.zarr", store)
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_rows_are_put_together_where_no_shard_is_whole(store, tmp_path):
    chosen = ("*/0.png", "*/3.png", "green/1.png")
    summary = subset(store, tmp_path / "s.zarr", *chosen)
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert list(reader.ids) == [
        "blue/0.png",
        "blue/3.png",
        "green/0.png",
        "green/1.png",
        "green/3.png",
        "red/0.png",
        "red/3.png",
    ]
    assert (summary.counts.done, reader.info.extents, reader.info.target_names) == (7, (), ("blue", "green", "red"))
    require_equal(tmp_path / "s.zarr", store)
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_parts_that_are_merged_are_the_whole(store, tmp_path):
    for number, patterns in enumerate((("blue/*",), ("green/*", "red/0.png"), ("red/[1-6].png",))):
        subset(store, tmp_path / f"{number}.zarr", *patterns)
    merge([tmp_path / f"{number}.zarr" for number in (2, 0, 1)], tmp_path / "s.zarr")
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert sorted(filter(None, reader.ids)) == list(LabelMapReader(store).ids)
    assert reader.info.num_images == 21
    require_equal(tmp_path / "s.zarr", store)
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


@pytest.mark.parametrize("shard_size", [4, 3])
def test_sizes_that_one_of_merged_stores_has_are_kept(store, tmp_path, monkeypatch, shard_size):
    """Whole shards, and rows that are put together; those of the other are not known."""
    subset(store, tmp_path / "with.zarr", "red/*", shard_size=4)
    open_source = combining.open_source
    monkeypatch.setattr(
        combining, "open_source", lambda at: (open_source(at)[0], replace(open_source(at)[1], image_sizes=False))
    )
    subset(store, tmp_path / "without.zarr", "blue/*", shard_size=4)
    monkeypatch.undo()
    assert not LabelMapReader(tmp_path / "without.zarr").info.image_sizes
    merge([tmp_path / "without.zarr", tmp_path / "with.zarr"], tmp_path / "s.zarr", shard_size=shard_size)
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert reader.image_size([f"red/{number}.png" for number in range(7)]).tolist() == [[60, 40]] * 7
    assert not reader.image_size([f"blue/{number}.png" for number in range(7)]).any()
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


@pytest.mark.parametrize("shard_size", [1, 4, 16])
def test_merged_with_any_shard_size(store, tmp_path, shard_size):
    for number, patterns in enumerate((("blue/*", "red/0.png"), ("green/*",))):
        subset(store, tmp_path / f"{number}.zarr", *patterns)
    merge([tmp_path / "0.zarr", tmp_path / "1.zarr"], tmp_path / "s.zarr", shard_size=shard_size)
    assert LabelMapReader(tmp_path / "s.zarr").info.shard_size == shard_size
    require_equal(tmp_path / "s.zarr", store)
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_failed_rows_stay_failed_and_pending_ones_are_left_out(make_store, tmp_path):
    for number in range(10):
        paint(tmp_path / "images" / f"{number}.png", "red")
    (tmp_path / "images" / "6.png").write_bytes(b"no image")
    store = tmp_path / "made.zarr"
    make_store(tmp_path / "images", store)
    (store / "commits" / "c.0.0.0").unlink()  # rows 0 to 3
    heard = Heard()
    summary = subset(store, tmp_path / "s.zarr", "*", observer=heard)
    assert heard.warnings == [f"{store}: 4 rows are pending, and are left out"]
    assert (summary.counts.done, summary.counts.failed) == (5, 1)
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert list(reader.ids) == [f"{number}.png" for number in range(4, 10)]
    with pytest.raises(FailedRowError, match="cannot be decoded"):
        reader["6.png"]
    subset(store, tmp_path / "few.zarr", "[689].png")
    assert LabelMapReader(tmp_path / "few.zarr").error("6.png").startswith("cannot be decoded")
    with pytest.raises(OptionError, match="none of the chosen rows holds anything yet"):
        subset(store, tmp_path / "none.zarr", "[0123].png")


def test_a_merged_store_is_annotated_further(make_store, pictures, tmp_path):
    """Its rows are an annotator's, and it says of which."""
    for colour in ("red", "green"):
        make_store(shutil.copytree(pictures / colour, tmp_path / colour), tmp_path / f"{colour}.zarr")
    for number in range(7):
        (tmp_path / "green" / f"{number}.png").rename(tmp_path / "green" / f"g{number}.png")
    shutil.rmtree(tmp_path / "green.zarr")
    make_store(tmp_path / "green", tmp_path / "green.zarr")
    merge([tmp_path / "red.zarr", tmp_path / "green.zarr"], tmp_path / "s.zarr")
    reader = LabelMapReader(tmp_path / "s.zarr")
    assert [(extent.start, extent.stop) for extent in reader.info.extents] == [(0, 7), (8, 15)]
    assert [extent.images_root for extent in reader.info.extents] == [str(tmp_path / "red"), str(tmp_path / "green")]
    assert reader.info.images_root is None
    blue = shutil.copytree(pictures / "blue", tmp_path / "blue")
    for number in range(7):
        (blue / f"{number}.png").rename(blue / f"b{number}.png")
    from labelstore.pipelines.annotate import annotate
    from labelstore.pipelines.settings import Settings

    settings = Settings("toy_annotators:colours")
    assert annotate(blue, str(tmp_path / "s.zarr"), settings, SERIAL, Observer(), extend=True).new_rows == 7
    assert verify_store(str(tmp_path / "s.zarr"), 1, Observer()).whole


def test_images_that_two_stores_have(store, tmp_path):
    subset(store, tmp_path / "one.zarr", "blue/*", "green/*")
    subset(store, tmp_path / "other.zarr", "green/*", "red/*")
    pair = [tmp_path / "one.zarr", tmp_path / "other.zarr"]
    with pytest.raises(ImagesError, match=r"7 images are in .*one\.zarr and in .*other\.zarr: green/"):
        merge(pair, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    merge(pair, tmp_path / "s.zarr", skip_duplicates=True)
    assert LabelMapReader(tmp_path / "s.zarr").info.num_images == 21
    require_equal(tmp_path / "s.zarr", store)


def test_stores_of_another_kind_are_not_mixed(picture_store, spectral_store, make_store, pictures, tmp_path):
    with pytest.raises(StoreMismatchError, match=r"expected maps of one kind, got encoding topk and spectral"):
        merge([picture_store, spectral_store], tmp_path / "s.zarr")
    make_store(pictures, tmp_path / "other.zarr", top_k=2)
    with pytest.raises(StoreMismatchError, match="top_k 3 and 2"):
        merge([picture_store, tmp_path / "other.zarr"], tmp_path / "s.zarr")
    make_store(pictures, tmp_path / "flipped.zarr", flip=True)
    with pytest.raises(StoreMismatchError, match="annotator toy_annotators:colours and toy_annotators:colours"):
        merge([picture_store, tmp_path / "flipped.zarr"], tmp_path / "s.zarr")
    with pytest.raises(OptionError, match="expected stores that are distinct"):
        merge([picture_store, picture_store], tmp_path / "s.zarr")
    with pytest.raises(OptionError, match="expected stores that are distinct"):
        merge([picture_store, tmp_path / "other.zarr"], picture_store)


def test_what_is_damaged_is_not_copied(store, tmp_path):
    array = "classes" if (store / "classes").exists() else "spectra"
    file = next((store / array).glob("c.1.*"))
    flip(file, file.stat().st_size // 2)
    with pytest.raises(DamagedError, match=rf"shard 1: {array}: not the file that was committed; run labelstore repair"):
        subset(store, tmp_path / "s.zarr", "*")
    assert not LabelMapReader(tmp_path / "s.zarr").status()[4:8].any()


def test_a_subset_goes_on_where_it_was_interrupted(store, tmp_path, monkeypatch):
    subset(store, tmp_path / "whole.zarr", "*[0-4].png")
    put = store_rows.ShardRows.put

    def interrupted(rows, *given):
        if rows.shard == 2:
            raise KeyboardInterrupt
        put(rows, *given)

    monkeypatch.setattr(store_rows.ShardRows, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        subset(store, tmp_path / "s.zarr", "*[0-4].png")
    monkeypatch.undo()
    assert 0 < subset(store, tmp_path / "s.zarr", "*[0-4].png").new_rows < 15
    assert store_contents(tmp_path / "s.zarr") == store_contents(tmp_path / "whole.zarr")
    with pytest.raises(StoreMismatchError, match="there is another store: num_rows"):
        subset(store, tmp_path / "s.zarr", "*[0-5].png")


@pytest.mark.slow
def test_workers_make_the_same_store(store, tmp_path):
    subset(store, tmp_path / "serial.zarr", "*[0-4].png")
    workers = replace(SERIAL, workers=1)
    subset_store(str(store), str(tmp_path / "workers.zarr"), Selection(patterns=("*[0-4].png",)), workers, Observer())
    assert store_contents(tmp_path / "serial.zarr") == store_contents(tmp_path / "workers.zarr")


def test_selections(picture_store, tmp_path):
    ids = LabelMapReader(picture_store).ids
    listed = tmp_path / "ids.txt"
    listed.write_text("\ufeffred/1.png\r\nblue/0.png\n\nred/0.png\n", encoding="utf-8")
    assert [ids[row] for row in Selection(str(listed)).rows(ids)] == ["blue/0.png", "red/0.png", "red/1.png"]
    assert [ids[row] for row in Selection(str(listed), ("red*",)).rows(ids)] == ["red/0.png", "red/1.png"]
    assert [ids[row] for row in Selection(None, ("*[!0-5].png", "blue/0*")).rows(ids)] == [
        "blue/0.png",
        "blue/6.png",
        "green/6.png",
        "red/6.png",
    ]
    assert len(Selection().rows(ids)) == 21
    with pytest.raises(OptionError, match=r"RED\*: no image of the store is meant"):
        Selection(None, ("RED*",)).rows(ids)
    listed.write_text("red/1.jpg")
    with pytest.raises(UnknownIdError, match="no image id 'red/1.jpg'"):
        Selection(str(listed)).rows(ids)
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        Selection(str(tmp_path / "none.txt")).rows(ids)


def info_of_rows(counts, shard_size, root):
    """A store of extents of so many rows."""
    extents, start = [], 0
    for count in counts:
        extents.append(Extent(start, start + count, root))
        start = -(-(start + count) // shard_size) * shard_size
    base = StoreInfo(extents[-1].stop, 10, 3, (2, 2), shard_size, 4, named_annotator(""), images_root=root)
    return replace(base, extents=tuple(extents) if len(extents) > 1 else ())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 9), min_size=1, max_size=3), st.sampled_from([2, 4]), st.booleans(), st.integers(0, 99)
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([2, 4]),
)
def test_a_layout_has_every_chosen_row_once(stores, shard_size):
    chosen = []
    for number, (counts, size, whole, seed) in enumerate(stores):
        info = info_of_rows(counts, size, f"root{number % 2}")
        rows = np.concatenate([np.arange(extent.start, extent.stop) for extent in info.all_extents])
        keep = np.random.default_rng(seed).random(len(rows)) < (seed + 1) / 60
        keep[0] = True
        chosen.append(Chosen(info, rows[keep], whole))
    layout = lay_out(chosen, shard_size)
    made = replace(info_of_rows([1], shard_size, None), num_rows=layout.extents[-1].stop, extents=layout.extents)
    made = StoreInfo.from_attributes(made.to_attributes(), "")  # which looks at the extents
    assert made.num_shards == len(layout.shards)
    found = []
    for shard, part in enumerate(layout.shards):
        rows = picked(part, chosen)
        assert len(rows.rows) == len(made.shard_rows(shard))
        found += zip(rows.stores, rows.rows, strict=True)
        roots = {chosen[store].info.images_root for store in rows.stores}
        assert roots == {made.extent_of(made.shard_rows(shard).start).images_root}
        if isinstance(part, WholeShard):
            assert chosen[part.store].whole
            assert chosen[part.store].info.shard_size == shard_size
        else:
            assert isinstance(part, PickedRows)
    assert sorted(found) == [(store, row) for store, each in enumerate(chosen) for row in each.rows.tolist()]
