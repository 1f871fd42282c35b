"""`annotate` into spectral stores: the same guarantees, and the distance that it measures."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from folders import store_contents
from pictures import paint
from runs import SERIAL

from labelstore import LabelMapReader
from labelstore.errors import OptionError, StoreMismatchError
from labelstore.pipelines import defaults
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import Settings
from labelstore.records import LabelDistance, SpectralShape

SPECTRAL = {"encoding": "spectral", "classes_per_image": 5, "patterns": 3, "frequencies": 4}


def test_spectral_is_what_a_new_store_is(pictures, tmp_path):
    summary = annotate(pictures, str(tmp_path / "s.zarr"), Settings(model="toy_annotators:colours"), SERIAL, Observer())
    assert (summary.info.encoding, summary.info.baseline) == ("spectral", "absent_mass")
    assert summary.info.spectral == SpectralShape(8, 4, defaults.PATTERNS, (5, 5), 1)  # the toy knows 8 colours
    assert summary.counts.done == 21


def test_a_damaged_shard_is_made_again(make_store, pictures, spectral_store, tmp_path):
    store = Path(shutil.copytree(spectral_store, tmp_path / "s.zarr"))
    file = store / "spectra" / "c.1.0"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    summary = make_store(pictures, store, **SPECTRAL)
    assert (summary.new_rows, summary.counts.done) == (4, 21)
    assert store_contents(store) == store_contents(spectral_store)


def test_two_processes_write_the_bytes_that_one_writes(pictures, spectral_store, tmp_path):
    two = Resources(workers=2, device="cpu", threads=1, decode_threads=2, batch_size=4)
    settings = Settings(model="toy_annotators:colours", top_k=3, **SPECTRAL)
    annotate(pictures, str(tmp_path / "two.zarr"), settings, two, Observer())
    assert store_contents(tmp_path / "two.zarr") == store_contents(spectral_store)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"encoding": "topk"}, "--encoding topk (the store has spectral)"),
        ({"encoding": "spectral", "classes_per_image": 4}, "--classes-per-image 4 (the store has 5)"),
        ({"encoding": "spectral", "patterns": 2}, "--patterns 2 (the store has 3)"),
        ({"encoding": "spectral", "frequencies": 3}, "--frequencies 3 (the store has 4)"),
        ({"encoding": "spectral", "tail_bits": 0}, "--tail-bits 0 (the store has 1)"),
        ({"encoding": "spectral", "baseline": "zero"}, "--baseline zero (the store has absent_mass)"),
    ],
)
def test_other_settings_are_refused_with_both_values(make_store, pictures, spectral_store, choice, words):
    with pytest.raises(StoreMismatchError) as caught:
        make_store(pictures, spectral_store, **choice)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"encoding": "spectral", "classes_per_image": 9}, "--classes-per-image 9: expected at most 8"),
        ({"encoding": "spectral", "frequencies": 8}, "--frequencies 8: expected at most 7"),
        ({"encoding": "topk", "frequencies": 3}, "--frequencies: goes with --encoding spectral"),
    ],
)
def test_what_cannot_be_leaves_no_store(make_store, pictures, tmp_path, choice, words):
    with pytest.raises(OptionError, match=words):
        make_store(pictures, **choice)
    assert not (tmp_path / "labels.zarr").exists()


def test_the_distance_to_the_annotators_labels_is_measured_and_recorded(make_store, pictures, tmp_path):
    worst = make_store(pictures, tmp_path / "1.zarr", encoding="spectral", classes_per_image=1, patterns=1).info.distance
    best = make_store(pictures, tmp_path / "8.zarr", encoding="spectral", classes_per_image=8, patterns=15).info.distance
    topk = make_store(pictures, tmp_path / "k.zarr", encoding="topk", top_k=3).info.distance
    assert worst.images == best.images == topk.images == 8
    assert 0 < best.l1 < worst.l1 <= 2
    assert 0 <= best.kl < worst.kl
    assert 0 <= worst.agreement <= best.agreement <= 1
    reader = LabelMapReader(tmp_path / "8.zarr")
    assert reader.info.distance == best
    recorded = json.loads((tmp_path / "8.zarr" / "zarr.json").read_text())["attributes"]["labelstore"]["distance"]
    assert LabelDistance(**recorded) == best
    assert asdict(best) == recorded


def test_no_distance_where_no_sample_can_be_read(make_store, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    summary = make_store(tmp_path / "images", encoding="spectral")
    assert summary.info.distance is None
    assert summary.counts.failed == 1


def test_failed_rows_are_failed_rows(make_store, tmp_path):
    for name in ("red", "blue"):
        paint(tmp_path / "images" / f"{name}.png", name)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    make_store(tmp_path / "images", encoding="spectral")
    reader = LabelMapReader(tmp_path / "labels.zarr")
    assert reader.status(["blue.png", "broken.png", "red.png"]).tolist() == [1, 2, 1]
    np.testing.assert_allclose(reader.pool(["blue.png"], [(0, 0, 1, 1)]).sum(), 1, atol=1e-6)
