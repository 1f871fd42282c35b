"""Encodings as users choose them: what goes together, and what an annotator's maps can have."""

from __future__ import annotations

import pytest

from labelstore.errors import OptionError
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice, baseline, check_choice, spectral_shape
from labelstore.records import SpectralShape


def test_defaults():
    shape = spectral_shape(EncodingChoice(), 1000, (15, 15))
    named, patterns, frequencies = defaults.CLASSES_PER_IMAGE, defaults.PATTERNS, defaults.FREQUENCIES
    assert shape == SpectralShape(named, named // 2, patterns, (frequencies, frequencies), 1)
    assert baseline(EncodingChoice()) == "absent_mass"
    assert baseline(EncodingChoice("topk")) == "absent_mean"
    assert baseline(EncodingChoice("topk", baseline="zero")) == "zero"
    assert spectral_shape(EncodingChoice("topk"), 1000, (15, 15)) is None


@pytest.mark.parametrize(
    ("num_classes", "size", "expected"),
    [
        (3, (15, 15), SpectralShape(3, 2, 5, (5, 5), 1)),
        (1, (7, 7), SpectralShape(1, 1, 5, (5, 5), 1)),
        (1000, (2, 2), SpectralShape(40, 20, 3, (2, 2), 1)),
        (1000, (1, 1), SpectralShape(40, 0, 0, (1, 1), 1)),
        (4096, (1, 1), SpectralShape(40, 0, 0, (1, 1), 1)),
        (21841, (1, 1), SpectralShape(40, 0, 0, (1, 1), 0)),
        (1000, (2, 9), SpectralShape(40, 20, 5, (2, 5), 1)),
    ],
)
def test_defaults_are_cut_to_what_there_is(num_classes, size, expected):
    assert spectral_shape(EncodingChoice(), num_classes, size) == expected


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"classes_per_image": 11}, "--classes-per-image 11: expected at most 10: the classes of the annotator"),
        ({"frequencies": 8}, "--frequencies 8: expected at most 7: the 7x9 map of the annotator"),
        ({"frequencies": 2, "patterns": 4}, "--patterns 4: expected at most 3: 2x2 frequencies but the mean"),
    ],
)
def test_more_than_there_is_is_refused(choice, words):
    with pytest.raises(OptionError, match=words):
        spectral_shape(EncodingChoice(**choice), 10, (7, 9))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"encoding": "topk", "patterns": 3, "tail_bits": 2}, "--patterns, --tail-bits: goes with --encoding spectral"),
        ({"encoding": "topk", "baseline": "absent_mass"}, "--baseline absent_mass: goes with --encoding spectral"),
    ],
)
def test_what_does_not_go_together_is_refused(choice, words):
    with pytest.raises(OptionError, match=words):
        check_choice(EncodingChoice(**choice))
    check_choice(EncodingChoice(**{**choice, "encoding": "spectral"}))
