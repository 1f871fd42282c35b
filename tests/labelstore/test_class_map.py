"""Classes of a data set against those of a store: the same, mapped on somebody's word, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelstore.class_map import match_classes
from labelstore.class_map_file import read_class_map
from labelstore.errors import ClassMatchError, OptionError
from labelstore.records import AnnotatorRecord
from labelstore.schema import StoreInfo

IDS = ("n01", "n02", "n03", "n04")
NAMES = ("tench", "crane", "shark", "crane")  # ImageNet has two cranes
INFO = StoreInfo(
    num_rows=1,
    num_classes=4,
    top_k=1,
    map_size=(1, 1),
    shard_size=4,
    id_bytes=1,
    annotator=AnnotatorRecord("test", "0" * 64, 8, (0.0,) * 3, (1.0,) * 3, "bilinear"),
    class_ids=IDS,
    class_names=NAMES,
)
UNNAMED = replace(INFO, class_ids=None, class_names=None)
BY_NAME = replace(INFO, class_ids=None, class_names=("a", "b", "c", "d"))


def test_the_same_classes_need_no_map():
    assert match_classes(INFO, IDS, None) is None
    assert match_classes(INFO, list(IDS), None) is None
    assert match_classes(INFO, NAMES, None) is None  # in the store's order, cranes and all
    assert match_classes(BY_NAME, ("a", "b", "c", "d"), None) is None


@pytest.mark.parametrize(
    ("info", "classes", "words"),
    [
        (INFO, ("n02", "n01", "n03", "n04"), "4 of them are among the store's class ids.*class_map='by_id'"),
        (INFO, ("n01", "n02"), "2 of them .* class_map='by_id'"),
        (INFO, ("n01", "cat"), r"'n01', 'cat'.*'n01', 'n02', 'n03', \.\.\..*1 of them.*class_map=\{"),
        (INFO, ("crane", "tench"), "1 of them are among .*class_map=\\{"),  # names that occur twice tell nothing apart
        (INFO, None, "does not name its classes.*class_map='same'"),
        (UNNAMED, IDS, "the store does not name its 4 classes, the data set has 4.*class_map='same'"),
        (BY_NAME, ("b", "a", "c", "d"), "4 of them are among the store's class names"),
    ],
)
def test_anything_else_is_refused_with_what_would_do(info, classes, words):
    with pytest.raises(ClassMatchError, match=words) as caught:
        match_classes(info, classes, None, "labels.zarr")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("labels.zarr: ")


@pytest.mark.parametrize(
    ("info", "classes", "class_map", "expected"),
    [
        (INFO, ("n03", "n01"), "by_id", [2, 0]),
        (INFO, IDS, "by_id", [0, 1, 2, 3]),
        (BY_NAME, ("d", "a"), "by_id", [3, 0]),
        (INFO, ("x", "y"), [3, 1], [3, 1]),
        (INFO, None, np.array([3, 1]), [3, 1]),
        (INFO, ("x", "y"), {"x": "n04", "y": 1, "z": 0}, [3, 1]),
        (INFO, ("x", "y"), {"y": "shark", "x": "tench"}, [0, 2]),
        (INFO, ("shark", "tench"), "by_id", [2, 0]),
        (INFO, ("tench", "n04"), "by_id", [0, 3]),
        (INFO, ("x", "y"), {"x": "3", "y": np.int64(1)}, [3, 1]),
        (BY_NAME, ("x", "y"), {"y": "c", "x": "a"}, [0, 2]),
    ],
)
def test_maps(info, classes, class_map, expected):
    found = match_classes(info, classes, class_map)
    assert (found.tolist(), found.dtype) == (expected, np.int64)


def test_ones_word_that_they_are_the_same():
    assert match_classes(UNNAMED, None, "same") is None
    assert match_classes(INFO, ("w", "x", "y", "z"), "same") is None
    with pytest.raises(ClassMatchError, match="expected the store's 4 classes, the data set has 2"):
        match_classes(UNNAMED, ("x", "y"), "same")


@pytest.mark.parametrize(
    ("info", "classes", "class_map", "words"),
    [
        (INFO, ("n01", "cat", "dog"), "by_id", "2 of the data set's 3 classes are not among the store's: 'cat', 'dog'"),
        (INFO, None, "by_id", "does not name its classes"),
        (
            INFO,
            ("crane", "tench"),
            "by_id",
            r"1 of .* 2 classes .*'crane' may be class 1 \(n02, crane\) or 3 \(n04, crane\): say",
        ),
        (UNNAMED, IDS, "by_id", "store does not name its classes"),
        (INFO, IDS, "by_name", r"expected 'same', 'by_id', a file \(.json, .csv, .tsv\), numbers or a mapping, got 'by_name'"),
        (INFO, ("x", "y"), [1], "expected 2 numbers, .* got 1"),
        (INFO, ("x", "y"), [1, 4], r"class_map\[1\]: expected a class of the store, 0\.\.3, got 4"),
        (INFO, ("x", "y"), [1, -1], r"class_map\[1\]"),
        (INFO, ("x", "y"), [1, 1], r"one of them twice: 1 \(n02, crane\), for 'x' and 'y'"),
        (INFO, ("x", "y"), [0.0, 1.0], "expected whole numbers"),
        (INFO, ("x", "y"), {"x": 1}, "1 of the data set's classes are not in it: 'y'"),
        (INFO, ("x",), {"x": "n99"}, "not among the store's class ids or names: 'n99'"),
        (INFO, ("x",), {"x": "sharc"}, r"'sharc' \(similar: 'shark'\)"),
        (INFO, ("x",), {"x": "crane"}, r"'crane' may be class 1 .* or 3 .*: say which, by id or number"),
        (INFO, ("x",), {"x": True}, "got True"),
        (INFO, ("x",), {"x": 1.0}, "got 1.0"),
        (INFO, ("x",), {"x": "4"}, r"class_map\['x'\]: expected a class of the store, 0\.\.3, got 4"),
        (INFO, ("x",), {"x": None}, "1 of .* have no class of the store, so no label: 'x'"),
        (INFO, ("x",), {"x": []}, "have no class of the store"),
        (INFO, ("x", "y"), {"x": ["n01", "n02"], "y": "n02"}, r"one of them twice: 1 \(n02, crane\), for 'x' and 'y'"),
        (INFO, ("x",), {"x": ["n01", "tench"]}, "one of them twice"),
        (INFO, None, {"x": 1}, "a mapping needs a data set that names its classes"),
    ],
)
def test_maps_that_do_not_fit(info, classes, class_map, words):
    with pytest.raises(ClassMatchError, match=words):
        match_classes(info, classes, class_map)


TWELVE = replace(UNNAMED, num_classes=12)
FOLDERS = tuple(sorted(map(str, range(12))))
"""As ImageFolder sorts them: 0, 1, 10, 11, 2, ..."""


def test_folders_named_by_number_are_found_by_number():
    assert FOLDERS[:5] == ("0", "1", "10", "11", "2")
    expected = [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    named = replace(TWELVE, class_names=tuple("abcdefghijkl"))
    for info in (TWELVE, named):
        assert match_classes(info, FOLDERS, "by_id").tolist() == expected
        with pytest.raises(ClassMatchError, match=r"another order .* its target 2 is '10'.* class_map='by_id'"):
            match_classes(info, FOLDERS, "same")
        with pytest.raises(ClassMatchError, match="class_map='by_id'"):
            match_classes(info, FOLDERS, None)
    in_order = tuple(f"{number:02}" for number in range(12))
    assert match_classes(TWELVE, in_order, "same") is None
    with pytest.raises(ClassMatchError, match="class_map='same'"):
        match_classes(TWELVE, in_order, None)
    assert match_classes(replace(TWELVE, class_names=FOLDERS), FOLDERS, None) is None
    assert match_classes(replace(TWELVE, class_names=FOLDERS), FOLDERS, "same") is None
    assert match_classes(replace(TWELVE, class_names=FOLDERS), tuple(map(str, range(12))), "by_id").tolist() == [
        FOLDERS.index(str(number)) for number in range(12)
    ]


def test_folders_counted_from_one_are_no_class_numbers():
    counted = tuple(sorted(map(str, range(1, 13))))
    with pytest.raises(ClassMatchError, match=r"another order .* its target 1 is '10'.*class_map=\{"):
        match_classes(TWELVE, counted, "same")
    for word in ("by_id", None):
        with pytest.raises(ClassMatchError, match=r"class_map=\{"):
            match_classes(TWELVE, counted, word)


def test_the_stores_own_names_in_another_order_are_not_the_same():
    with pytest.raises(ClassMatchError, match="its target 0 is 'b'.*by_id"):
        match_classes(BY_NAME, ("b", "a", "c", "d"), "same")
    with pytest.raises(ClassMatchError, match="class_map='same'"):
        match_classes(INFO, ("n02", "n01", "n03", "n04"), "same")


IMAGENET = replace(
    INFO,
    num_classes=6,
    class_ids=None,
    class_names=("tench, Tinca tinca", "missile", "projectile, missile", "espresso", "crane", "crane"),
)


@pytest.mark.parametrize(
    ("classes", "class_map", "expected"),
    [
        (("cup",), {"cup": "espresso"}, [3]),
        (("Tinca tinca", "projectile"), "by_id", [0, 2]),
        (("projectile, missile", "missile"), "by_id", [2, 1]),  # whole names, as their commas show
        (("missile", "projectile", "tench"), "by_id", [1, 2, 0]),  # the projectile is named beside it
        (("a", "b"), {"a": ["tench", "espresso"], "b": "projectile"}, [[0, 3], [2, -1]]),
        (("a", "b"), [[0, 3], [2]], [[0, 3], [2, -1]]),
        (("a", "b"), [0, [3, 2]], [[0, -1], [3, 2]]),
        (("a",), {"a": ("tench",)}, [0]),
    ],
)
def test_names_of_which_some_are_ambiguous(classes, class_map, expected):
    assert match_classes(IMAGENET, classes, class_map).tolist() == expected


@pytest.mark.parametrize("name", ["crane", "missile"])
def test_only_ambiguous_names_are_refused(name):
    with pytest.raises(ClassMatchError, match=f"'{name}' may be class . .* or .*: say which, by id or number"):
        match_classes(IMAGENET, (name, "espresso"), "by_id")
    with pytest.raises(ClassMatchError, match=f"'{name}' may be class"):
        match_classes(IMAGENET, ("x",), {"x": name})


# Files


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.json", '{"a": ["tench", 3], "b": "projectile"}', [[0, 3], [2, -1]]),
        ("m.json", "[3, 1]", [3, 1]),
        ("m.csv", 'label,class\na,"tench, Tinca tinca"\na,3\n\nb,projectile\n', [[0, 3], [2, -1]]),
        ("m.TSV", "\ufefflabel\tclass\r\na\t3\r\nb\t1\r\n", [3, 1]),
    ],
)
def test_files_say_what_mappings_say(tmp_path, name, text, expected):
    path = write(tmp_path / name, text)
    for given in (path, str(path)):
        assert match_classes(IMAGENET, ("a", "b"), given).tolist() == expected
    assert match_classes(IMAGENET, ("a", "b"), read_class_map(path)).tolist() == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.json", "{", "expected JSON"),
        ("m.json", '"by_id"', "expected an object from label to class, or a list"),
        ("m.json", "{}", "expected an object"),
        ("m.json", '{"a": 1, "a": 2}', "'a' stands there twice"),
        ("m.csv", "a,1\n", "expected the header 'label,class', got 'a,1'"),
        ("m.csv", "label,class\na,tench, Tinca tinca\n", "line 2: expected 2 fields, got 3"),
        ("m.csv", "label,class\n", "expected rows"),
        ("m.csv", 'label,class\n"a', "line 2"),
        ("m.toml", "a = 1", "ends in .json, .csv, .tsv"),
    ],
)
def test_files_that_are_no_class_map(tmp_path, name, text, words):
    with pytest.raises(OptionError, match=words) as caught:
        read_class_map(write(tmp_path / name, text))
    assert name in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OptionError, match="No such file"):
        match_classes(INFO, IDS, str(tmp_path / "none.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="UTF-8"):
        read_class_map(tmp_path / "bytes.json")
