"""What `inspect` prints: the map's numbers, letters that agree with the legend, and lines that fit."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console, RenderableType

from labelstore.cli.mapview import NO_CLASS, MapView, class_name, inside, legend, percent, top_classes
from labelstore.cli.terminal import map_cells, side_by_side, soft_label_table

SHAPES = [(1, 1), (7, 7), (15, 15), (24, 24), (64, 64), (5, 20), (20, 5), (3, 200)]
NAMES = [f"a rather long name of class {i}, with a synonym" for i in range(40)]


def random_view(height: int, width: int, num_classes: int = 40) -> MapView:
    rng = np.random.default_rng(height * 1000 + width)
    dense = rng.normal(0, 3, (num_classes, height, width)).astype(np.float32)
    classes = np.argsort(-dense, axis=0)[:5]
    return MapView.from_map(classes.astype(np.uint16), np.take_along_axis(dense, classes, axis=0), num_classes)


def view_of(best: list[list[int]]) -> MapView:
    """Make a view with one stored class a location."""
    classes = np.array(best, np.uint16)[None]
    return MapView.from_map(classes, np.full(classes.shape, 5, np.float32), 1000)


def printed(what: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(what)
    return file.getvalue()


def coloured(what: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system="truecolor", no_color=False).print(what)
    return file.getvalue()


def test_probability_is_the_softmax_over_stored_and_absent_classes():
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.normal(0, 4, (3, 4, 5)), axis=0).astype(np.float32)
    classes = rng.permuted(np.tile(np.arange(9)[:, None, None], (1, 4, 5)), axis=0)[:3].astype(np.uint16)
    dense = np.zeros((9, 4, 5))
    np.put_along_axis(dense, classes.astype(int), scores.astype(float), axis=0)
    softmax = np.exp(dense) / np.exp(dense).sum(axis=0)
    expected = np.take_along_axis(softmax, classes[:1].astype(int), axis=0)[0]
    view = MapView.from_map(classes, scores, 9)
    np.testing.assert_array_equal(view.best, classes[0])
    np.testing.assert_allclose(view.probability, expected, rtol=1e-6)


@pytest.mark.parametrize(("top", "expected"), [(1e4, 1.0), (-1e4, 0.0), (0.0, 0.1)])
def test_probabilities_are_stable_with_extreme_scores(top, expected):
    classes = np.array([[[3]], [[4]]], np.uint16)
    scores = np.array([[[top]], [[min(top, 0.0) - 1e4]]], np.float32)
    probability = MapView.from_map(classes, scores, 11 if top == 0 else 10).probability
    np.testing.assert_allclose(probability, expected, atol=1e-9)


def test_probabilities_are_stable_where_every_class_is_stored():
    classes = np.array([[[0]], [[1]]], np.uint16)
    view = MapView.from_map(classes, np.full((2, 1, 1), -1e4, np.float32), 2)
    np.testing.assert_allclose(view.probability, 0.5)


def test_no_class_entries_are_neither_best_nor_counted():
    classes = np.array([[[NO_CLASS, NO_CLASS]], [[7, NO_CLASS]]], np.uint16)
    view = MapView.from_map(classes, np.zeros((2, 1, 2), np.float32), 10)
    assert view.best.tolist() == [[7, NO_CLASS]]
    np.testing.assert_allclose(view.probability, [[0.1, 0.0]])
    assert view.shares == ((7, 0.5),)
    assert [(row.name, row.share) for row in legend(view, None)] == [("class 7", 0.5), ("no class", 0.5)]


def test_shares_fall_with_ties_by_lower_class():
    assert view_of([[9, 4, 4], [2, 9, 1]]).shares == ((4, 2 / 6), (9, 2 / 6), (1, 1 / 6), (2, 1 / 6))


@pytest.mark.parametrize("shape", SHAPES)
def test_shares_and_legend_sum_to_one(shape):
    view = random_view(*shape)
    assert sum(share for _, share in view.shares) == pytest.approx(1)
    rows = legend(view, None)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert len(rows) == min(len(view.shares), 9)


def test_other_counts_its_classes():
    rows = legend(view_of([list(range(10))]), None)
    assert rows[-1].name == "other (2 classes)"
    assert legend(view_of([list(range(9))]), None)[-1].name == "other (1 class)"


def test_class_names_are_one_printable_line_or_a_number():
    assert class_name(1, ["", "tabby,\n tabby\x1b[31m cat"]) == "tabby, tabby [31m cat"
    assert class_name(0, ["", "x"]) == class_name(0, None) == "class 0"
    assert class_name(2, ["", "x"]) == "class 2"
    assert class_name(0, ["écrivain, 猫"]) == "écrivain, 猫"


def test_percentages():
    assert [percent(p) for p in (0, 1e-5, 0.0006, 0.789, 1)] == ["0.0 %", "<0.1 %", "0.1 %", "78.9 %", "100.0 %"]


def test_box_marks_centres_and_never_nothing():
    view = random_view(4, 4)
    expected = np.zeros((4, 4), bool)
    expected[0:2, 2:4] = True
    np.testing.assert_array_equal(inside(view, (0.5, 0.0, 1.0, 0.5)), expected)
    np.testing.assert_array_equal(inside(view, (1.0, 0.5, 0.5, 0.0)), expected)  # mirrored
    assert np.argwhere(inside(view, (0.51, 0.01, 0.53, 0.02))).tolist() == [[0, 2]]
    assert np.argwhere(inside(view, (1.0, 1.0, 1.0, 1.0))).tolist() == [[3, 3]]


def test_map_shows_rows_from_the_top_and_letters_agree_with_the_legend():
    lines = printed(map_cells(view_of([[281, 281, 281], [7, 7, 5]]), ["x"] * 281 + ["tabby"])).splitlines()
    assert [line.split() for line in lines[:2]] == [["A", "A", "A"], ["B", "B", "C"]]
    listed = dict(re.findall(r"^ ([A-H]) +(.+?) +\d", "\n".join(lines), re.MULTILINE))
    assert listed == {"A": "tabby", "B": "x", "C": "x"}


def test_box_stands_between_brackets():
    lines = printed(map_cells(view_of([[1, 1, 1], [1, 1, 1]]), None, (0.34, 0.5, 1.0, 1.0))).splitlines()
    assert lines[:2] == [" A A A", " A[A A]"]
    assert any("within the box" in line for line in lines)
    lines = printed(map_cells(view_of([[1, 1, 1], [1, 1, 1]]), None, (0.6, 0.0, 0.4, 0.5))).splitlines()
    assert lines[:2] == [" A[A]A", " A A A"]


def test_narrow_cells_show_the_box_in_capitals():
    lines = printed(map_cells(view_of([[1] * 12, [1] * 11 + [2]]), None, (0.5, 0.0, 1.0, 0.5)), width=20).splitlines()
    assert lines[:2] == ["aaaaaaAAAAAA", "aaaaaaaaaaab"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("box", [None, (0.9, 0.1, 0.3, 0.6), (0.0, 0.0, 1.0, 1.0)])
@pytest.mark.parametrize("width", [80, 30])
def test_maps_fit_the_console(shape, box, width):
    text = printed(map_cells(random_view(*shape), NAMES, box), width)
    assert max(len(line) for line in text.splitlines()) <= width
    map_rows = text.split("\n\n")[0].splitlines()
    assert len(map_rows) == pytest.approx(shape[0] / -(-shape[1] // width), abs=1)
    assert len({len(row.rstrip("]")) for row in map_rows}) == 1
    assert re.search(r"^ A +a rath.*\d %$", text, re.MULTILINE)


def test_a_thinned_map_says_so():
    assert "1 in 3 rows and columns of 3 x 200" in printed(map_cells(random_view(3, 200)))


def test_colours_are_only_added_to_the_letters():
    view = random_view(6, 6)
    plain, colour = printed(map_cells(view, NAMES)), coloured(map_cells(view, NAMES))
    assert "\x1b" not in plain
    assert "48;2;0;114;178" in colour
    assert re.sub(r"\x1b\[[\d;]*m", "", colour) == plain


def test_soft_labels_list_the_highest_classes_with_bars():
    soft = np.array([0.0, 0.25, 0.5, 0.25], np.float32)
    assert top_classes(soft, 3) == [(2, 0.5), (1, 0.25), (3, 0.25)]
    lines = printed(soft_label_table("whole image", soft, ["a", "b", "[bold]c", "d"], 3)).splitlines()
    assert lines[0].rstrip() == "whole image"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["1", "[bold]c", "50.0", "%"],
        ["2", "b", "25.0", "%"],
        ["3", "d", "25.0", "%"],
    ]
    assert lines[1].count("━") == pytest.approx(2 * lines[2].count("━"), abs=1)


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_two_soft_labels_fit_beside_or_below_one_another(width):
    soft = np.random.default_rng(0).dirichlet(np.full(40, 0.1)).astype(np.float32)
    tables = [soft_label_table(f"title {i}", soft, NAMES, 5) for i in range(2)]
    lines = printed(side_by_side(*tables), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == (6 if width >= 80 else 13)
    assert sum(len(re.findall(r"\d %", line)) for line in lines) == 10


def test_bars_take_the_maps_colours():
    view = view_of([[3, 3, 1]])
    text = coloured(soft_label_table("x", np.array([0, 0.4, 0, 0.6], np.float32), None, 2, view.swatches()))
    first, second = text.splitlines()[1:3]
    assert "38;2;204;121;167" in first
    assert "38;2;230;159;0" in second


def test_a_stream_without_unicode_gets_plain_characters():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=80, color_system=None)
    console.print(map_cells(view_of([list(range(12))])))
    console.print(soft_label_table("x", np.array([0.4, 0.6], np.float32)))
    assert b"##" in raw.getvalue()
    assert b" . . ." in raw.getvalue()
