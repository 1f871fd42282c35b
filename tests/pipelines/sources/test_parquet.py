"""Parquet files with images inside."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow
import pytest
from packing import pack_parquet
from pyarrow import parquet

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources import ImagesSpec, list_images, parquet_values

IMAGES = {f"{number}.png": b"image %d" % number for number in (5, 3, 8, 1, 9)}


def test_rows_are_in_the_files_order_with_the_paths_as_ids(tmp_path):
    file = pack_parquet(tmp_path / "a.parquet", IMAGES, [2, 0, 1, 1, 2], ["cat", "dog", "eel"], rows_a_group=2)
    listing = list_images(file)
    assert listing.ids == tuple(IMAGES)
    assert [listing.places[row].read() for row in range(5)] == list(IMAGES.values())
    assert (listing.targets.tolist(), listing.target_names) == ([2, 0, 1, 1, 2], ("cat", "dog", "eel"))
    assert pickle.loads(pickle.dumps(listing.places[4])).read() == b"image 9"


def test_several_files_and_labels_without_names(tmp_path):
    pack_parquet(tmp_path / "a-0.parquet", {"x.png": b"x"}, [7])
    pack_parquet(tmp_path / "a-1.parquet", {"y.png": b"y", "z.png": b"z"}, [0, 3])
    listing = list_images(ImagesSpec((f"{tmp_path}/a-*.parquet",)))
    assert listing.ids == ("x.png", "y.png", "z.png")
    assert listing.places[2].read() == b"z"
    assert (listing.targets.tolist(), listing.target_names) == ([7, 0, 3], None)


def test_ids_of_a_column_or_of_file_and_row(tmp_path):
    table = pyarrow.table({"jpg": [b"a", b"b"], "key": ["one", "two"], "number": [11, 12], "weight": [0.5, 1.5]})
    parquet.write_table(table, tmp_path / "x.parquet")
    location = (str(tmp_path / "x.parquet"),)
    assert list_images(ImagesSpec(location, image_column="jpg", id_column="key")).ids == ("one", "two")
    assert list_images(ImagesSpec(location, image_column="jpg", id_column="number")).ids == ("11", "12")
    assert list_images(ImagesSpec(location, image_column="jpg")).ids == ("x.parquet/00000000", "x.parquet/00000001")
    spec = ImagesSpec(location, image_column="jpg", id_column="key", label_column="key")
    assert list_images(spec).target_names == ("one", "two")
    with pytest.raises(ImagesError, match=r"column 'weight' has type double, expected whole numbers or texts \(--id-column\)"):
        list_images(ImagesSpec(location, image_column="jpg", id_column="weight"))
    with pytest.raises(ImagesError, match=r"expected a column 'name', found jpg, key, number, weight; --id-column names it"):
        list_images(ImagesSpec(location, image_column="jpg", id_column="name"))


@pytest.mark.parametrize(("values", "kind"), [([[1, 2]], "list<"), ([0.5], "double"), ([b"cat"], "binary")])
def test_a_column_of_labels_that_are_none_is_refused_in_words(tmp_path, values, kind):
    file = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"image": [b"x"], "label": values}), file)
    for chosen in (None, "label"):
        with pytest.raises(ImagesError, match=f"'label' has type {kind}.*expected whole numbers or texts.*@none for none"):
            list_images(ImagesSpec((str(file),), label_column=chosen))
    listing = list_images(ImagesSpec((str(file),), label_column="@none"))
    assert (listing.targets.tolist(), listing.target_names, listing.notes) == ([-1], None, ())


def test_without_a_column_of_labels_there_are_none(tmp_path):
    """Neither the file's name nor the folders of paths are labels; columns that could be are named."""
    images = pyarrow.array([{"bytes": b"x", "path": "cat/1.png"}, {"bytes": b"y", "path": "dog/2.png"}])
    table = {"image": images, "fine_label": [3, 1], "coarse_label": [0, 0], "width": [8, 8]}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    listing = list_images(tmp_path / "x.parquet")
    assert (listing.targets.tolist(), listing.target_names) == ([-1, -1], None)
    note = "No labels are taken. Columns that could be: fine_label, coarse_label: choose with --label-column"
    assert listing.notes == (note,)
    listing = list_images(ImagesSpec((str(tmp_path / "x.parquet"),), label_column="fine_label"))
    assert (listing.targets.tolist(), listing.notes) == ([3, 1], ())


def test_dictionaries_are_decoded_and_other_plain_types_read(tmp_path):
    def targets(values: Any) -> tuple[list[int], tuple[str, ...] | None]:
        parquet.write_table(pyarrow.table({"image": [b"x", b"y", b"z"], "label": values}), tmp_path / "x.parquet")
        listing = list_images(tmp_path / "x.parquet")
        return listing.targets.tolist(), listing.target_names

    words = pyarrow.array(["dog", None, "cat"])
    assert targets(words.dictionary_encode()) == targets(words) == ([1, -1, 0], ("cat", "dog"))
    assert targets(pyarrow.array([7, 3, 7]).dictionary_encode()) == ([7, 3, 7], None)
    assert targets([True, False, None]) == ([1, 0, -1], None)
    assert targets(pyarrow.nulls(3)) == ([-1, -1, -1], None)
    assert targets(pyarrow.array([1, 2, 300], pyarrow.uint16())) == ([1, 2, 300], None)
    assert targets(["01", "1", "2"]) == ([0, 1, 2], ("01", "1", "2"))  # two labels, not one
    assert targets(["5", "1", "2"]) == ([5, 1, 2], None)


def test_files_that_disagree_on_labels(tmp_path):
    def write(name: str, labels: list[int] | None, names: list[str] | None = None) -> None:
        table = pyarrow.table({"image": [b"x"]} | ({} if labels is None else {"label": labels}))
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / name)

    both = ImagesSpec((str(tmp_path / "{a,b}.parquet"),))
    write("a.parquet", [1], ["cat", "dog"])
    write("b.parquet", [1], ["cat", "dog"])
    assert list_images(both).target_names == ("cat", "dog")
    write("b.parquet", [1], ["dog", "cat"])
    with pytest.raises(ImagesError, match=r"b.parquet: other names of labels than .*a.parquet"):
        list_images(both)
    write("b.parquet", [2], ["cat", "dog"])
    with pytest.raises(ImagesError, match=r"b.parquet: column 'label': expected 0..1, as it has 2 names, got 2"):
        list_images(both)
    write("b.parquet", None)
    listing = list_images(both)
    assert listing.targets.tolist() == [1, -1]
    assert listing.notes == (f"1 of 2 files have no column of labels, such as {tmp_path / 'b.parquet'}",)


def test_missing_values_are_no_ids_and_no_labels(tmp_path):
    columns = {"image": [b"x", b"y", b"z"], "key": ["one", None, ""], "label": [3, None, 0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    listing = list_images(ImagesSpec((str(tmp_path / "x.parquet"),), id_column="key"))
    assert listing.ids == ("one", "x.parquet/00000001", "x.parquet/00000002")
    assert (listing.targets.tolist(), listing.target_names) == ([3, -1, 0], None)
    columns = {"image": [{"bytes": b"x", "path": "a.png"}, None], "label": ["cat", None]}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(columns["image"], kind), "label": columns["label"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    listing = list_images(tmp_path / "x.parquet")
    assert listing.ids == ("a.png", "x.parquet/00000001")
    assert (listing.targets.tolist(), listing.target_names) == ([0, -1], ("cat",))
    with pytest.raises(OSError, match="no bytes in column"):
        listing.places[1].read()


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for folder in ("test", "train"):
        (tmp_path / folder).mkdir()
        parquet.write_table(pyarrow.table({"image": [folder.encode()]}), tmp_path / folder / "0000.parquet")
    listing = list_images(ImagesSpec((f"{tmp_path}/*/0000.parquet",), id_column="@row"))
    assert listing.ids == ("test/0000.parquet/00000000", "train/0000.parquet/00000000")
    assert [place.read() for place in listing.part(range(2))] == [b"test", b"train"]


def test_files_may_keep_images_in_other_types(tmp_path):
    pack_parquet(tmp_path / "a.parquet", {"a.png": b"a"})
    columns = {"image": pyarrow.array([b"b"], pyarrow.large_binary()), "label": pyarrow.array(["x"], pyarrow.large_string())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "b.parquet")
    parquet.write_table(pyarrow.table({"image": pyarrow.array([b"c"], pyarrow.binary_view())}), tmp_path / "c.parquet")
    listing = list_images(ImagesSpec((f"{tmp_path}/{{a,b,c}}.parquet",)))
    assert listing.ids == ("a.png", "b.parquet/00000000", "c.parquet/00000000")
    assert [place.read() for place in listing.part(range(3))] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("rows_a_group", [1, 7, 500])
def test_values_are_read_in_any_order_and_by_many_threads(tmp_path, rows_a_group):
    images = {f"{number:03}.png": number.to_bytes(2) * (1 + number % 7) for number in range(500)}
    listing = list_images(pack_parquet(tmp_path / "x.parquet", images, rows_a_group=rows_a_group))
    expected = list(images.values())
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda place: place.read(), listing.part(range(500)))) == expected
    for row in [*range(499, 0, -50), 0, 0, 1, 1, 499, *range(500)]:
        assert listing.places[row].read() == expected[row]


def test_a_row_group_is_read_once_however_large_and_not_kept(tmp_path, monkeypatch):
    begun = []
    cursor = parquet_values._Cursor
    monkeypatch.setattr(parquet_values, "_Cursor", lambda *arguments: begun.append(arguments[1]) or cursor(*arguments))
    images = {f"{number:03}.png": bytes([number]) * 100_000 for number in range(250)}
    listing = list_images(pack_parquet(tmp_path / "x.parquet", images, rows_a_group=125))
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda place: len(place.read()), listing.part(range(250)))) == 25_000_000
    assert begun == [(str(tmp_path / "x.parquet"), group, "image.bytes") for group in (0, 1)]
    assert not any(piece.column[0] == str(tmp_path / "x.parquet") for piece in parquet_values.VALUES._pieces)


def test_paths_that_are_taken_twice_or_missing(tmp_path):
    for name in ("a", "b"):
        pack_parquet(tmp_path / f"{name}.parquet", {"same.png": b"x"})
    spec = ImagesSpec((f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet"))
    with pytest.raises(ImagesError, match=r"'same\.png': .*a\.parquet: row 0 .* and .*b\.parquet: row 0 .*--id-column @row"):
        list_images(spec)
    numbered = ImagesSpec(spec.locations, id_column="@row")
    assert list_images(numbered).ids == ("a.parquet/00000000", "b.parquet/00000000")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    column = pyarrow.array([{"bytes": b"x", "path": None}, {"bytes": None, "path": "y.png"}], kind)
    parquet.write_table(pyarrow.table({"image": column}), tmp_path / "c.parquet")
    listing = list_images(tmp_path / "c.parquet")
    assert listing.ids == ("c.parquet/00000000", "y.png")
    with pytest.raises(OSError, match="an image must be in the file, not elsewhere"):
        listing.places[1].read()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1, 2]}, r"column 'image' has type int64, expected binary, or a struct with binary 'bytes'"),
        ({"image": ["a", "b"]}, r"column 'image' has type string, expected binary"),
        ({"image": [{"data": b"x"}]}, r"column 'image' has type struct<data: binary>, expected binary"),
        ({"picture": [b"x"]}, r"expected a column 'image' of images, found picture; name it with --image-column"),
        ({"image": pyarrow.array([], pyarrow.binary())}, "no rows in these 1 Parquet files"),
    ],
)
def test_tables_of_something_else(tmp_path, columns, message):
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ImagesError, match=message):
        list_images(tmp_path / "x.parquet")


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(ImagesError, match=r"none\.parquet: cannot be read as Parquet"):
        list_images(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet" * 100)
    with pytest.raises(ImagesError, match=r"text\.parquet: cannot be read as Parquet"):
        list_images(tmp_path / "text.parquet")
    whole = pack_parquet(tmp_path / "whole.parquet", {f"{n}.png": bytes([n]) * 5000 for n in range(40)}).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:3000])
    with pytest.raises(ImagesError, match=r"cut\.parquet: cannot be read as Parquet"):
        list_images(tmp_path / "cut.parquet")


def test_damage_inside_fails_rows_not_the_run(tmp_path):
    file = pack_parquet(tmp_path / "x.parquet", {f"{n}.png": bytes([n]) * 5000 for n in range(20)})
    listing = list_images(file)
    data = bytearray(file.read_bytes())
    data[10:200] = bytes(190)
    file.write_bytes(data)
    with pytest.raises(OSError, match="row group 0 cannot be read"):
        listing.places[3].read()
    assert listing.places[15].read() == bytes([15]) * 5000


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[parquet\]'"):
        list_images(tmp_path / "x.parquet")
