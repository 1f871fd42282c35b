"""Likely wrong labels and crops' risk, against plain loops and pictures whose answer is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import paint

from labelstore import random_crops
from labelstore.crop_risk import AREAS, crop_risk, stored_aspects
from labelstore.random_crops import random_boxes
from labelstore.reader import LabelMapReader
from labelstore.survey import Survey
from labelstore.suspects import class_thresholds, find_suspects


def surveyed(store) -> tuple[LabelMapReader, Survey]:
    reader = LabelMapReader(store)
    survey = Survey(reader)
    survey.add(reader, np.flatnonzero(reader.status() == 1))
    return reader, survey


@pytest.fixture
def made_up(picture_store):
    """A survey with random numbers in it."""
    _, survey = surveyed(picture_store)
    rng = np.random.default_rng(0)
    survey.own[:] = rng.integers(-1, 4, len(survey))
    survey.best[:] = rng.integers(0, 6, len(survey))
    survey.best_probability[:] = rng.uniform(0.5, 1, len(survey))
    survey.own[12:] = survey.best[12:]  # their thresholds are high
    share = rng.uniform(0, 0.4, len(survey))
    survey.own_probability[:] = np.where(survey.own == survey.best, survey.best_probability, share)
    return survey


def test_the_rank_is_that_of_confident_learning(made_up):
    survey, found = made_up, find_suspects(made_up)
    thresholds = class_thresholds(survey)
    own = {j: [float(survey.own_probability[row]) for row in range(21) if survey.own[row] == j] for j in range(8)}
    everybody = [share for shares in own.values() for share in shares]
    for j, shares in own.items():
        assert thresholds[j] == pytest.approx(np.mean(shares or everybody))
    wrong = [row for row in range(21) if survey.own[row] >= 0 and survey.best[row] != survey.own[row]]
    margin = {row: float(np.float32(survey.best_probability[row]) - np.float32(survey.own_probability[row])) for row in wrong}
    likely = {row: survey.best_probability[row] >= thresholds[survey.best[row]] for row in wrong}
    assert found.rows.tolist() == sorted(wrong, key=lambda row: (not likely[row], -margin[row], row))
    assert found.likely.tolist() == [likely[row] for row in found.rows]
    assert found.margins.tolist() == pytest.approx([margin[row] for row in found.rows])
    assert 0 < found.likely.sum() < len(wrong)


def test_an_image_in_the_wrong_folder_is_the_first(make_store, tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "images")
    (tmp_path / "images" / "red" / "0.png").rename(tmp_path / "images" / "green" / "wrong.png")
    make_store(tmp_path / "images")
    reader, survey = surveyed(tmp_path / "labels.zarr")
    found = find_suspects(survey)
    assert reader.ids[int(found.rows[0])] == "green/wrong.png"
    assert found.likely[0]
    assert found.margins[0] > 0.9


def test_the_risk_is_what_pooling_each_crop_says(picture_store):
    reader, survey = surveyed(picture_store)
    risk = crop_risk(reader, survey, images=5, crops=7, seed=3)
    rows, boxes = [0, 5, 10, 15, 20], random_boxes(np.random.default_rng(3), 35, 4 / 3)
    best = [int(reader.pool([rows[place // 7]], [box])[0].argmax()) for place, box in enumerate(boxes)]
    own = [int(survey.own[rows[place // 7]]) for place in range(35)]
    whole = [int(survey.best[rows[place // 7]]) for place in range(35)]
    assert (risk.images, risk.crops) == (5, 35)
    assert risk.from_label == pytest.approx(np.mean([one != other for one, other in zip(best, own, strict=True)]))
    assert risk.from_whole == pytest.approx(np.mean([one != other for one, other in zip(best, whole, strict=True)]))
    assert len(risk.by_area) == len(AREAS) - 1


def test_crops_of_one_colour_never_differ_and_of_two_they_do(make_store, tmp_path):
    paint(tmp_path / "images" / "blue" / "plain.png", "blue")
    make_store(tmp_path / "images")
    _, survey = surveyed(tmp_path / "labels.zarr")
    assert crop_risk(LabelMapReader(tmp_path / "labels.zarr"), survey).from_label == 0
    paint(tmp_path / "two" / "blue" / "two.png", "blue", "yellow")
    make_store(tmp_path / "two", tmp_path / "two.zarr")
    reader, survey = surveyed(tmp_path / "two.zarr")
    assert 0.3 < crop_risk(reader, survey, crops=400).from_label < 0.9
    assert crop_risk(reader, Survey(reader)) is None


def test_images_without_labels_have_no_risk_against_them(make_store, tmp_path):
    paint(tmp_path / "images" / "plain.png", "blue", "yellow")
    make_store(tmp_path / "images")
    reader, survey = surveyed(tmp_path / "labels.zarr")
    risk = crop_risk(reader, survey, crops=50)
    assert risk.from_label is None
    assert risk.from_whole > 0
    assert len(find_suspects(survey).rows) == 0


def test_shapes_that_a_store_keeps(make_store, tmp_path):
    images = tmp_path / "images"
    paint(images / "a.png", "red", size=(40, 20))
    (images / "b.png").write_bytes(b"no image")
    paint(images / "c.png", "red", size=(1, 300))
    make_store(images)
    reader = LabelMapReader(tmp_path / "labels.zarr")
    np.testing.assert_array_equal(stored_aspects(reader, np.arange(3)), [2.0, np.nan, 1 / 300])
    older = LabelMapReader(Path(__file__).parent.parent / "golden" / "v1-topk.zarr")
    np.testing.assert_array_equal(stored_aspects(older, np.arange(3)), [np.nan] * 3)


def test_crops_are_drawn_as_of_each_image_where_its_shape_is_known(picture_store, monkeypatch):
    reader, survey = surveyed(picture_store)
    drawn = []
    draw = random_crops.random_boxes

    def noted(rng, count, aspect=1.0):
        drawn.append((count, aspect))
        return draw(rng, count, aspect)

    monkeypatch.setattr("labelstore.crop_risk.random_boxes", noted)
    risk = crop_risk(reader, survey, images=3, crops=5, aspects=lambda rows: np.array([0.5, np.nan, 3.0]))
    assert drawn == [(5, 0.5), (5, 4 / 3), (5, 3.0)]
    assert (risk.images, risk.crops, risk.sized) == (3, 15, 2)
