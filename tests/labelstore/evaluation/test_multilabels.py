"""Multi-labels out of files as people have them, and out of a store."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy_annotators import NAMES

from labelstore import ClassMapError, ImagesError, OptionError
from labelstore.evaluation import read_multilabels, stored_multilabels


@pytest.fixture
def write(tmp_path):
    def writer(content) -> str:
        file = tmp_path / "labels.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    return writer


def named(labels, reader):
    return {reader.ids[row]: {NAMES[place] for place in classes} for row, classes in labels.classes.items()}


def test_a_list_goes_by_file_names_and_empty_lists_are_left_out(halves, write):
    """blue-yellow, red-blue, white-white: the order of names, not of folders' names."""
    found = read_multilabels(write([[NAMES.index("blue"), NAMES.index("yellow")], [NAMES.index("red")], []]), halves)
    assert named(found, halves) == {"blue/blue-yellow.png": {"blue", "yellow"}, "red/red-blue.png": {"red"}}
    assert (found.empty, found.unknown) == (1, 0)


def test_an_object_goes_by_ids_or_file_names_and_classes_by_numbers_ids_or_names(halves, write):
    given = {
        "red/red-blue.png": ["red", "colour-blue", "red"],
        "white-white.png": NAMES.index("white"),
        "blue/blue-yellow.png": [],
        "elsewhere.png": ["red"],
    }
    found = read_multilabels(write(given), halves)
    assert named(found, halves) == {"red/red-blue.png": {"red", "blue"}, "white/white-white.png": {"white"}}
    assert (found.empty, found.unknown) == (1, 1)
    rows = found.rows()
    table = found.table(rows.tolist(), len(NAMES))
    assert table.sum() == 3
    assert table[list(rows).index(halves.ids.row("red/red-blue.png")), NAMES.index("blue")]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ("[1, 2", OptionError, "expected JSON"),
        ("3", OptionError, "expected a list of lists, or an object from image to classes, got int"),
        ([[1], [2]], ImagesError, "expected a list of 3 lists"),
        ([[1], 2, [3]], OptionError, r"\[1\]: expected a list of classes, got 2"),
        ([[1], [8], [3]], ClassMapError, r"\[1\]: expected a class of the store, 0..7, or an id or name of one, got 8"),
        ({"red/red-blue.png": "pink"}, ClassMapError, "'red/red-blue.png': expected a class of the store"),
        ({"red/red-blue.png": "Yell"}, ClassMapError, "got 'Yell'; similar: 'yellow', 'colour-yellow'"),
        ({"red/red-blue.png": [True]}, ClassMapError, "got True"),
        ({"nowhere.png": ["red"]}, ImagesError, "found none"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(halves, write, content, error, said):
    with pytest.raises(error, match=said):
        read_multilabels(write(content), halves)


def test_a_file_that_is_not_there(halves, tmp_path):
    with pytest.raises(OptionError, match="cannot be read: No such file"):
        read_multilabels(tmp_path / "none.json", halves)


def test_a_file_name_of_several_images_names_none(make_store, write, tmp_path):
    from pictures import paint

    from labelstore import LabelMapReader

    for folder in ("a", "b"):
        paint(tmp_path / "twins" / folder / "same.png", "red")
    make_store(tmp_path / "twins")
    with pytest.raises(ImagesError, match="a file name that 2 images have"):
        read_multilabels(write({"same.png": ["red"]}), LabelMapReader(tmp_path / "labels.zarr"))


def test_what_a_store_says_by_location_is_more_than_of_the_whole(halves):
    by_location = named(stored_multilabels(halves, 0.5, "location"), halves)
    assert by_location == {
        "red/red-blue.png": {"red", "blue"},
        "white/white-white.png": {"white"},
        "blue/blue-yellow.png": {"blue", "yellow"},
    }
    whole = stored_multilabels(halves, 0.9, "image")
    assert named(whole, halves) == {"white/white-white.png": {"white"}}
    assert whole.empty == 2
    with pytest.raises(ImagesError, match="none of 3 images has a class of probability 1"):
        stored_multilabels(halves, 1.0, "image")


def test_scores_by_location_are_the_softmax_of_each_location(halves):
    from labelstore.evaluation.scores import score_batches

    (rows, found), *more = score_batches(halves, np.arange(3), "location")
    assert not more
    maps = halves.read(rows)
    dense = np.zeros((3, len(NAMES), *halves.map_size))
    np.put_along_axis(dense, maps.classes.astype(np.int64), maps.scores, axis=1)
    odds = np.exp(dense - dense.max(axis=1, keepdims=True))
    expected = (odds / odds.sum(axis=1, keepdims=True)).max(axis=(2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(OptionError, match="expected 'image' or 'location', got 'pixel'"):
        next(iter(score_batches(halves, rows, "pixel")))
