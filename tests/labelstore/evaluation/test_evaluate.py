"""Stores and classifiers held against what images show, and against each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy_annotators import NAMES

from labelstore import ImagesError, LabelMapReader, OptionError
from labelstore.evaluation import (
    MultiLabels,
    Predictions,
    evaluate_predictions,
    evaluate_store,
    read_predictions,
    stored_multilabels,
)

C = len(NAMES)


@pytest.fixture
def truth(halves) -> MultiLabels:
    shown = {"red/red-blue.png": ("red", "blue"), "white/white-white.png": ("white",), "blue/blue-yellow.png": ("yellow",)}
    return MultiLabels({halves.ids.row(key): tuple(map(NAMES.index, names)) for key, names in shown.items()})


def test_a_store_against_what_its_images_show(halves, truth):
    found = evaluate_store(halves, truth, [0.5], "location")
    assert (found.multi.images, found.multi.positives, found.left_out) == (3, 4, 0)
    (at,) = found.multi.thresholds
    assert (at.predicted, at.recall, at.precision) == (5, 1.0, 4 / 5)
    assert found.own_present == pytest.approx(2 / 3)  # of blue-yellow the file says yellow alone
    assert found.distance is None


def test_the_whole_images_label_shares_its_probability(halves, truth):
    whole, everywhere = (evaluate_store(halves, truth, [0.9], by) for by in ("image", "location"))
    assert whole.multi.thresholds[0].recall == 1 / 4
    assert everywhere.multi.thresholds[0].recall == 1.0


def test_predictions_against_multi_labels_and_the_store(halves, truth):
    rows = np.array([2, 0])
    said = np.eye(C, dtype=np.float32)[[next(iter(truth.classes[2])), NAMES.index("black")]]
    found = evaluate_predictions(halves, Predictions(rows, said), truth, [0.5])
    assert (found.multi.images, found.left_out) == (2, 1)
    assert found.multi.top1 == 0.5
    stored = halves.pool(rows, [(0, 0, 1, 1)] * 2)
    assert found.distance.l1 == pytest.approx(np.abs(stored - said).sum(axis=1).mean())
    assert found.distance.same_best == np.mean(stored.argmax(1) == said.argmax(1))
    assert found.distance.kl > 1


def test_a_stores_own_labels_as_predictions_agree_with_it(halves):
    own = Predictions(np.arange(3), halves.pool(np.arange(3), [(0, 0, 1, 1)] * 3))
    found = evaluate_predictions(halves, own, stored_multilabels(halves, 0.3, "image"), [0.3])
    assert (found.distance.same_best, found.distance.l1, found.multi.top1) == (1.0, 0.0, 1.0)
    assert found.distance.kl == pytest.approx(0, abs=1e-6)
    assert found.multi.thresholds[0].f1 == 1.0


def test_rows_without_a_map_are_left_out(make_store, tmp_path):
    from pictures import paint

    paint(tmp_path / "some" / "good.png", "red")
    (tmp_path / "some" / "broken.png").write_bytes(b"none")
    make_store(tmp_path / "some")
    reader = LabelMapReader(tmp_path / "labels.zarr")
    truth = MultiLabels({0: (NAMES.index("red"),), 1: (NAMES.index("red"),)})
    found = evaluate_store(reader, truth)
    assert (found.multi.images, found.multi.top1, found.left_out) == (1, 1.0, 1)
    assert (found.own_top1, found.own_present) == (None, None)
    with pytest.raises(ImagesError, match="none of the 1 images"):
        evaluate_store(reader, MultiLabels({reader.ids.row("broken.png"): (1,)}))


@pytest.mark.parametrize("thresholds", [[], [0.0], [0.5, 1.1], [float("nan")]])
def test_thresholds_that_are_none(halves, truth, thresholds):
    with pytest.raises(OptionError, match="expected numbers above 0"):
        evaluate_store(halves, truth, thresholds)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_predictions_come_by_id_in_any_order(halves, tmp_path):
    ids = ["white/white-white.png", "not/there.png", "blue/blue-yellow.png"]
    logits = np.random.default_rng(0).normal(0, 3, (3, C))
    for keys in (np.array(ids), np.array([key.encode() for key in ids])):
        found = read_predictions(save(tmp_path / "p.npz", ids=keys, logits=logits), halves)
        assert found.rows.tolist() == [halves.ids.row(ids[0]), halves.ids.row(ids[2])]
        assert found.unknown == 1
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.probabilities, expected[[0, 2]], rtol=1e-5)


def test_predictions_that_cannot_be_used(halves, tmp_path):
    ids, good = np.array(["white/white-white.png"]), np.full((1, C), 1 / C, np.float32)
    for arrays, error, said in (
        ({"ids": ids}, OptionError, "expected arrays ids and probabilities, or ids and logits, got ids"),
        ({"ids": ids, "logits": good, "probabilities": good}, OptionError, "got ids, probabilities, logits"),
        ({"ids": np.arange(1), "logits": good}, OptionError, "ids: expected text"),
        ({"ids": ids, "logits": good[:, 1:]}, OptionError, r"logits: expected floating \[1, 8\]"),
        ({"ids": ids, "logits": good.astype(int)}, OptionError, "logits: expected floating"),
        ({"ids": ids, "probabilities": good * 20}, OptionError, "are they logits"),
        ({"ids": ids, "logits": good * np.nan}, OptionError, "expected finite numbers"),
        ({"ids": np.array(["no.png"]), "logits": good}, ImagesError, "none of its 1 images"),
        ({"ids": ids.repeat(2), "logits": good.repeat(2, 0)}, ImagesError, "expected each image once"),
        ({"ids": ids.astype(object), "logits": good}, OptionError, "found objects, which are not unpickled"),
    ):
        with pytest.raises(error, match=said):
            read_predictions(save(tmp_path / "p.npz", **arrays), halves)


def test_files_that_are_no_predictions(halves, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text(json.dumps([]))
    for name, said in (
        ("one.npy", r"expected arrays \(\.npz\), found .*: File is not a zip file"),
        ("text.npz", "File is not a zip file"),
        ("none.npz", "cannot be read: No such"),
    ):
        with pytest.raises(OptionError, match=said):
            read_predictions(tmp_path / name, halves)
