"""The palette: letters and colours in order of share, readable, and told apart by colour-blind readers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore.cli.colours import BLACK, OTHER, PALETTE, RGB, WHITE, Swatch, assign, contrast, css, text_on

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}


def lab(colour: RGB, vision: str) -> np.ndarray:
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", list(VISION))
def test_every_two_colours_are_told_apart(vision):
    for one, other in itertools.combinations([*PALETTE, OTHER.colour], 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 15, (one, other)


@pytest.mark.parametrize("colour", [*PALETTE, OTHER.colour])
def test_text_is_readable_on_every_colour(colour):
    assert contrast(text_on(colour), colour) >= 4.5


@pytest.mark.parametrize("colour", [*PALETTE, OTHER.colour])
def test_colours_stand_out_from_dark_and_light_terminals(colour):
    assert contrast(colour, BLACK) >= 2
    assert contrast(colour, WHITE) >= 1.25


def test_contrast_of_black_and_white_is_21_either_way():
    assert contrast(BLACK, WHITE) == contrast(WHITE, BLACK) == pytest.approx(21)


def test_letters_go_by_order_and_the_rest_has_none():
    swatches = assign(range(100, 120))
    assert [s.letter for s in swatches.values()] == list("ABCDEFGH")
    assert list(swatches) == list(range(100, 108))
    assert assign([]) == {}


def test_a_class_has_the_same_colour_in_every_image():
    assert {assign([281, *others])[281].colour for others in ([], [5], [289], [282, 1, 504])} == {PALETTE[281 % 8]}
    assert assign([7, 281])[281] == Swatch("B", PALETTE[1])


@given(st.lists(st.integers(0, 65534), unique=True, max_size=12))
def test_no_two_classes_of_an_image_have_the_same_colour(classes):
    swatches = assign(classes)
    assert len({swatch.colour for swatch in swatches.values()}) == len(swatches) == min(len(classes), len(PALETTE))
    if len({number % len(PALETTE) for number in classes}) == len(classes):
        assert all(swatch.colour == PALETTE[number % len(PALETTE)] for number, swatch in swatches.items())


def test_a_colour_as_css_writes_it():
    assert css((0, 114, 178)) == "#0072b2"
