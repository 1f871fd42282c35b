"""The picture: the map lies over the photograph the right way round, for any photograph and any map."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from labelstore.cli.colours import PALETTE, WHITE
from labelstore.cli.mapview import Box, MapView
from labelstore.cli.picture import overlay, save_picture
from labelstore.errors import OptionError

GREY = (128, 128, 128)
SOFT = np.array([0.6, 0.3, 0.1], np.float32)


def view_of(best: np.ndarray, score: float = 20.0) -> MapView:
    classes = np.asarray(best, np.uint16)[None]
    return MapView.from_map(classes, np.full(classes.shape, score, np.float32), 1000)


def halves(height: int, width: int, axis: int) -> MapView:
    """Class 0 in the first half along an axis, and one row or column more than class 1 has."""
    best = np.ones((height, width), int)
    best[(slice(None),) * axis + (slice(0, best.shape[axis] // 2 + 1),)] = 0
    return view_of(best)


def nearest(pixel: np.ndarray) -> int:
    return int(np.argmin([np.abs(pixel - np.array(colour)).sum() for colour in PALETTE[:3]]))


def draw(tmp_path, photo: Image.Image, view: MapView, box: Box | None = None, name="out.png", **options) -> Image.Image:
    options = {"title": "n01/a.jpg", **options}
    save_picture(tmp_path / name, photo, view, SOFT, box, None if box is None else SOFT, **options)
    with Image.open(tmp_path / name) as picture:
        picture.load()
        return picture


def map_panel(picture: Image.Image, photo: Image.Image) -> np.ndarray:
    """Cut the map's panel out of the page of a wide photograph without a box: the right half, as high as it is drawn."""
    width = (picture.width - 2 * 42 - 36) // 2
    left = 42 + width + 36
    return np.asarray(picture, float)[126 : 126 + round(width * photo.height / photo.width), left : left + width]


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (300, 300)])
@pytest.mark.parametrize("shape", [(15, 15), (4, 20)])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_map_lies_the_right_way_round(size, shape, axis):
    view = halves(*shape, axis)
    image = np.asarray(overlay(Image.new("RGB", size, GREY), view), float)
    split = (shape[axis] // 2 + 1) / shape[axis] * image.shape[axis]
    for i in (3, int(split) - 6, int(split) + 6, image.shape[axis] - 4):
        for j in (5, image.shape[1 - axis] - 6):
            pixel = image[i, j] if axis == 0 else image[j, i]
            assert nearest(pixel) == (0 if i < split else 1), (i, j)


def test_a_map_hot_in_the_top_half_colours_the_top_half_of_a_wide_picture(tmp_path):
    photo = Image.new("RGB", (1600, 700), GREY)
    panel = map_panel(draw(tmp_path, photo, halves(8, 8, 0)), photo)
    height, width = panel.shape[:2]
    split = height * 5 / 8
    for y in range(4, height - 4, 7):
        if abs(y - split) > 4:
            assert nearest(panel[y, 10]) == nearest(panel[y, width - 11]) == (0 if y < split else 1), y


def test_the_photograph_shows_through_less_where_the_map_is_sure():
    photo = Image.new("RGB", (90, 90), GREY)
    sure = np.asarray(overlay(photo, view_of([[0]], score=20)), float)[5, 5]
    unsure = np.asarray(overlay(photo, view_of([[0]], score=0)), float)[5, 5]
    assert np.abs(unsure - 128).sum() < np.abs(sure - 128).sum() < np.abs(np.array(PALETTE[0]) - 128).sum()


def test_the_largest_patch_carries_the_letter():
    best = np.zeros((10, 10), int)
    best[1, 1] = 1
    best[6:9, 5:8] = 1
    image = np.asarray(overlay(Image.new("RGB", (600, 600), GREY), view_of(best)))
    badge = (image == WHITE).all(axis=-1)[7 * 60 + 4 : 8 * 60 - 4, 6 * 60 + 4 : 7 * 60 - 4]
    assert badge.any()  # the ring, in the patch's middle location
    assert not (image == WHITE).all(axis=-1)[64:116, 64:116].any()


def test_mirrored_boxes_draw_the_same_rectangle(tmp_path):
    photo, view = Image.new("RGB", (400, 200), GREY), halves(7, 7, 1)
    straight = draw(tmp_path, photo, view, (0.25, 0.5, 0.75, 1.0))
    assert straight == draw(tmp_path, photo, view, (0.75, 1.0, 0.25, 0.5))
    panel = np.asarray(straight)[126 : 126 + 450, 42 : 42 + 900]
    rows, columns = np.nonzero((panel == 0).all(axis=-1))
    assert (columns.min(), columns.max()) == (225, 675)
    assert (rows.min(), rows.max()) == (225, 449)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (10, 2000), (2000, 10), (300, 900), (4000, 3000)])
@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (64, 64), (5, 20)])
def test_odd_photographs_and_maps(tmp_path, size, shape):
    rng = np.random.default_rng(0)
    view = view_of(rng.integers(0, 20, shape), 3.0)
    picture = draw(tmp_path, Image.new("RGB", size, GREY), view, (0.2, 0.0, 0.21, 1.0), "out.jpg")
    assert 600 <= picture.width <= 1920
    assert picture.height <= 1400
    assert picture.getpixel((2, 2)) == WHITE


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_are_taken(tmp_path, mode):
    assert draw(tmp_path, Image.new(mode, (40, 30)), halves(3, 3, 0)).mode == "RGB"


def test_the_photograph_is_left_as_it_is(tmp_path):
    photo = Image.new("RGB", (900, 600), GREY)
    draw(tmp_path, photo, halves(3, 3, 0), (0.1, 0.1, 0.9, 0.9))
    assert photo == Image.new("RGB", (900, 600), GREY)


def test_the_picture_holds_names_of_any_length_and_script(tmp_path):
    names = ["Schnürsenkel " * 30, "猫", "é\nü"]
    photo, view = Image.new("RGB", (300, 200), GREY), view_of([[0, 1, 2]])
    picture = draw(tmp_path, photo, view, (0, 0, 1, 1), class_names=names, title="Größe/é" * 60, top=3)
    # Nothing runs into the margins.
    pixels = np.asarray(picture)
    assert (pixels[:, :40] == 255).all()
    assert (pixels[:, -40:] == 255).all()


def test_accents_are_spelled_with_the_letters_the_font_has(tmp_path):
    photo, view = Image.new("RGB", (300, 200), GREY), halves(2, 2, 0)
    accented = draw(tmp_path, photo, view, title="Crème brûlée, Straße, Łódź × 2")
    assert accented == draw(tmp_path, photo, view, title="Creme brulee, Strasse, Lodz x 2")


@pytest.mark.parametrize("top", [0, 1, 3, 500])
def test_any_number_of_bars(tmp_path, top):
    photo, view = Image.new("RGB", (30, 20), GREY), halves(2, 2, 0)
    assert draw(tmp_path, photo, view, (0, 0, 1, 1), top=top).height >= draw(tmp_path, photo, view, (0, 0, 1, 1), top=0).height


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.b.jpeg", "JPEG"), ("a.webp", "WEBP")])
def test_the_extension_is_the_format(tmp_path, name, kind):
    assert draw(tmp_path, Image.new("RGB", (30, 20), GREY), halves(2, 2, 0), name=name).format == kind


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_other_extensions_are_refused_in_words(tmp_path, name):
    with pytest.raises(OptionError, match=r"\.png, \.jpg, \.jpeg, \.webp, got '.*a"):
        draw(tmp_path, Image.new("RGB", (30, 20), GREY), halves(2, 2, 0), name=name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"there is no folder '.*nowhere'"):
        draw(tmp_path, Image.new("RGB", (30, 20), GREY), halves(2, 2, 0), name="nowhere/a.png")


def test_a_path_that_cannot_be_written_is_an_option_error(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OptionError, match="cannot write"):
        draw(tmp_path, Image.new("RGB", (30, 20), GREY), halves(2, 2, 0), name="a.png")
