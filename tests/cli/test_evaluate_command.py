"""`labelstore evaluate`: for people and for programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import run_here, run_installed
from toy_annotators import NAMES

from labelstore import LabelMapReader


@pytest.fixture
def labels(pictures, tmp_path):
    """What the pictures show, by id: their folder's colour; one shows two."""
    shown = {file.relative_to(pictures).as_posix(): [file.parent.name] for file in pictures.rglob("*.png")}
    shown["blue/0.png"] = ["blue", "yellow"]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(shown))
    return file


@pytest.fixture
def predictions(picture_store, tmp_path):
    """Of a classifier that sees red everywhere."""
    ids = list(LabelMapReader(picture_store).ids)
    file = tmp_path / "predictions.npz"
    np.savez(file, ids=ids, probabilities=np.eye(len(NAMES))[[NAMES.index("red")] * len(ids)])
    return file


def test_a_store_against_labels_as_the_installed_command(picture_store, labels):
    shown = run_installed("evaluate", picture_store, "--labels", labels)
    assert (shown.code, shown.err) == (0, "")
    assert "best class is one that the image shows" in shown.out
    assert "21 images, 1.05 classes each" in shown.out
    assert "own label is one that the image shows   100.0%" in shown.out
    assert len([line for line in shown.out.splitlines() if line.strip().endswith(tuple("0123456789"))]) >= 7


def test_predictions_and_store_against_labels_as_json(picture_store, labels, predictions):
    command = ("evaluate", picture_store, "--labels", labels, "--predictions", predictions, "--threshold", 0.5, "--json")
    said = json.loads(run_here(*command).out)
    assert said["unused"] == {"empty": 0, "labels_unknown": 0, "predictions_unknown": 0}
    red = said["predictions"]
    assert (red["multi"]["images"], red["multi"]["positives"]) == (21, 22)
    assert red["multi"]["top1"] == red["own_top1"] == pytest.approx(7 / 21)
    (at,) = red["multi"]["thresholds"]
    assert (at["precision"], at["recall"]) == (pytest.approx(7 / 21), pytest.approx(7 / 22))
    assert said["store"]["multi"]["top1"] > red["multi"]["top1"]
    assert said["store"]["distance"] is None


def test_predictions_against_the_store(picture_store, predictions):
    shown = run_here("evaluate", picture_store, "--predictions", predictions, "--present", 0.5)
    assert shown.code == 0
    assert "to the store's labels of whole images" in shown.out
    assert "same best class" in shown.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "nothing to hold the store against"),
        (("--labels", "LABELS", "--present", "0.5"), 2, "--present is for --predictions without --labels"),
        (("--labels", "LABELS", "--threshold", "0"), 2, "is not in the range"),
        (("--labels", "none.json"), 2, "does not exist"),
        (("--predictions", "LABELS"), 2, "expected arrays (.npz), found what cannot be read"),
    ],
)
def test_wrong_usage(picture_store, labels, options, code, said):
    given = [str(labels) if option == "LABELS" else option for option in options]
    shown = run_here("evaluate", picture_store, *given)
    assert shown.code == code
    assert said in shown.message
    assert "Traceback" not in shown.err
