"""Classes of a data set against those of a store: the same, mapped on somebody's word, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labelstore.errors import ClassMatchError
from labelstore.records import AnnotatorRecord
from labelstore.schema import StoreInfo
from labelstore.torch import match_classes

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
    assert match_classes(BY_NAME, ("a", "b", "c", "d"), None) is None


@pytest.mark.parametrize(
    ("info", "classes", "words"),
    [
        (INFO, ("n02", "n01", "n03", "n04"), "4 of them are among the store's class ids.*class_map='by_id'"),
        (INFO, ("n01", "n02"), "2 of them .* class_map='by_id'"),
        (INFO, ("n01", "cat"), r"'n01', 'cat'.*'n01', 'n02', 'n03', \.\.\..*1 of them.*class_map=\{"),
        (INFO, NAMES, "0 of them"),  # names that occur twice tell nothing apart
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
        (INFO, ("x", "y"), {"y": "shark", "x": "tench"}, None),
        (BY_NAME, ("x", "y"), {"y": "c", "x": "a"}, [0, 2]),
    ],
)
def test_maps(info, classes, class_map, expected):
    if expected is None:
        with pytest.raises(ClassMatchError, match="not among the store's class ids or names: 'shark', 'tench'"):
            match_classes(info, classes, class_map)
        return
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
        (UNNAMED, IDS, "by_id", "store does not name its classes"),
        (INFO, IDS, "by_name", "expected 'same', 'by_id', numbers or a mapping, got 'by_name'"),
        (INFO, ("x", "y"), [1], "expected 2 numbers, .* got 1"),
        (INFO, ("x", "y"), [1, 4], r"class_map\[1\]: expected a class of the store, 0\.\.3, got 4"),
        (INFO, ("x", "y"), [1, -1], r"class_map\[1\]"),
        (INFO, ("x", "y"), [1, 1], "one of them twice"),
        (INFO, ("x", "y"), [0.0, 1.0], "expected whole numbers"),
        (INFO, ("x", "y"), {"x": 1}, "1 of the data set's classes are not in it: 'y'"),
        (INFO, ("x",), {"x": "n99"}, "not among the store's class ids or names: 'n99'"),
        (INFO, None, {"x": 1}, "a mapping needs a data set that names its classes"),
    ],
)
def test_maps_that_do_not_fit(info, classes, class_map, words):
    with pytest.raises(ClassMatchError, match=words):
        match_classes(info, classes, class_map)
