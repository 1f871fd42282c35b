"""Probabilities at the doors of a store: refused, or made logits, with the option that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelstore import LabelMapReader
from labelstore.errors import LabelStoreError, MapsError, OptionError
from labelstore.pipelines.scores import dense_logits_of, listed_logits_of
from labelstore.pipelines.writer import LabelMapWriter
from labelstore.pooling import softmax
from labelstore.records import ScoresRecord
from labelstore.units import SIGMOID, SOFTMAX

IDS = [f"{number}.jpg" for number in range(4)]
CLASSES, SIZE = 24, (5, 5)


def logits() -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(4, CLASSES, *SIZE)) * 5).astype(np.float32)


def shares() -> NDArray[np.float32]:
    return np.asarray(np.moveaxis(softmax(np.moveaxis(logits(), 1, -1)), -1, 1))


def best(values: NDArray[Any], count: int = 5) -> tuple[NDArray[Any], NDArray[Any]]:
    classes = np.argsort(-values, axis=1)[:, :count]
    return classes, np.take_along_axis(values, classes, axis=1)


def written(store: Path, put: Any, **options: Any) -> NDArray[np.float32]:
    """The soft labels of whole images, out of a store that `put` has filled."""
    with LabelMapWriter.create(store, IDS, num_classes=CLASSES, map_size=SIZE, **options) as writer, writer.shard(0) as rows:
        put(rows)
    reader = LabelMapReader(store)
    return reader.pool(np.arange(len(IDS)), np.tile([0.0, 0.0, 1.0, 1.0], (len(IDS), 1)))


def test_the_writer_refuses_probabilities_as_logits(tmp_path: Path) -> None:
    for number, values in enumerate((shares(), shares().astype(np.float16), 1 / (1 + np.exp(-logits())))):
        with pytest.raises(MapsError, match=r"expected logits, got probabilities.*scores='probabilities'"):
            written(tmp_path / str(number), lambda rows, values=values: rows.put_logits(0, values))
    with pytest.raises(MapsError, match=r"expected logits, got probabilities"):
        written(tmp_path / "best", lambda rows: rows.put_maps(0, *best(shares())))
    with pytest.raises(MapsError, match=r"got log-probabilities"):
        written(tmp_path / "logs", lambda rows: rows.put_maps(0, *best(np.log(shares()))))


def test_a_few_locations_are_judged_when_the_shard_is_whole(tmp_path: Path) -> None:
    """One map at a time, of one location each."""
    values = shares()[:, :, :1, :1]

    def put(rows: Any) -> None:
        for row in range(len(IDS)):
            rows.put_logits(row, values[row : row + 1])

    with LabelMapWriter.create(tmp_path / "s", IDS, num_classes=CLASSES, map_size=(1, 1)) as writer:
        rows = writer.shard(0)
        put(rows)
        with pytest.raises(MapsError, match=r"shard 0: expected logits, got probabilities"):
            rows.commit()
    with LabelMapWriter(tmp_path / "s") as writer:
        assert writer.pending() == [0]


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_probabilities_give_the_labels_of_their_logits(tmp_path: Path, encoding: str) -> None:
    how: dict[str, Any] = {"encoding": encoding, "baseline": "absent_mean"}
    right = written(tmp_path / "a", lambda rows: rows.put_logits(0, logits()), **how)
    got = written(tmp_path / "b", lambda rows: rows.put_logits(0, shares()), scores="probabilities", **how)
    logs = written(tmp_path / "c", lambda rows: rows.put_logits(0, np.log(shares())), **how)
    for other in (got, logs):
        assert np.abs(other - right).sum(axis=1).max() < 0.03  # levels are of another range
    record = LabelMapReader(tmp_path / "b").info.imported
    assert record is not None
    assert record.scores == ScoresRecord(SOFTMAX, floor=1e-12)


def test_the_best_probabilities_leave_the_rest_to_the_other_classes(tmp_path: Path) -> None:
    """Labels of a location are the probabilities themselves, and what is left of 1 is shared alike."""
    classes, values = best(shares())
    store = tmp_path / "s"
    written(store, lambda rows: rows.put_maps(0, classes, values), scores="probabilities")
    box = np.array([[0, 0, 1 / SIZE[1], 1 / SIZE[0]]])
    soft = LabelMapReader(store).pool(np.array([0]), box)[0]
    named = classes[0, :, 0, 0]
    assert np.abs(soft[named] - values[0, :, 0, 0]).max() < 0.02  # 255 levels
    others = np.delete(soft, named)
    assert np.ptp(others) < 1e-6
    assert abs(others.sum() - (1 - values[0, :, 0, 0].sum())) < 0.02


def test_what_is_no_probability_is_refused_by_name(tmp_path: Path) -> None:
    for name, values in (("logits", logits()), ("sigmoid", 1 / (1 + np.exp(-logits())))):
        with pytest.raises(MapsError, match=r"0.jpg: scores: expected probabilities that sum to 1"):
            written(tmp_path / name, lambda rows, values=values: rows.put_logits(0, values), scores="probabilities")
    with pytest.raises(OptionError, match="expected 'logits', 'probabilities' or None"):
        written(tmp_path / "x", lambda rows: None, scores="softmax")
    with pytest.raises(LabelStoreError, match="single class"):
        LabelMapWriter.create(tmp_path / "y", IDS, num_classes=1, map_size=SIZE)


def test_by_baseline_zero_probabilities_do_not_count_for_less_than_classes_that_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(MapsError, match=r"got log-probabilities.*baseline='absent_mean'"):
        written(tmp_path / "a", lambda rows: rows.put_logits(0, np.log(shares())), baseline="zero")
    got = written(tmp_path / "b", lambda rows: rows.put_logits(0, shares()), scores="probabilities", baseline="zero")
    right = written(tmp_path / "c", lambda rows: rows.put_logits(0, logits()), baseline="zero")
    assert np.abs(got - right).sum(axis=1).max() < 0.25  # their mean over classes is near 0, not 0


def test_scores_logits_keeps_what_looks_like_probabilities(tmp_path: Path) -> None:
    soft = written(tmp_path / "s", lambda rows: rows.put_logits(0, shares()), scores="logits")
    assert soft.max() < np.e / (CLASSES - 1 + np.e)


def test_scores_that_may_be_probabilities_are_warned_of(tmp_path: Path) -> None:
    small = 0.3 + 0.01 * np.random.default_rng(0).random((4, 3, *SIZE))
    with LabelMapWriter.create(tmp_path / "s", IDS, num_classes=3, map_size=SIZE, top_k=3) as writer:
        rows = writer.shard(0)
        rows.put_logits(0, small)
        with pytest.warns(UserWarning, match="if these are probabilities"):
            rows.commit()


def test_a_sigmoids_probabilities_become_its_logits() -> None:
    values = logits().clip(-10, 10)
    got, problems = dense_logits_of(1 / (1 + np.exp(-values.astype(np.float64))), ScoresRecord(SIGMOID, floor=1e-7))
    assert not any(problems)
    np.testing.assert_allclose(got, values, atol=1e-3)
    ends = dense_logits_of(np.array([[[0.0], [1.0]]]), ScoresRecord(SIGMOID, floor=1e-7))[0]
    assert np.isfinite(ends).all()
    assert ends[0, 1, 0] == -ends[0, 0, 0]


def test_lists_with_fewer_classes_than_k() -> None:
    scores = np.array([0.7, 0.2, 0.0])[:, None, None]
    classes = np.array([3, 1, 65535], np.uint16)[:, None, None]
    got, problem = listed_logits_of(scores, classes, ScoresRecord(SOFTMAX, floor=1e-12), 5)
    assert problem == ""
    np.testing.assert_allclose(got[:2, 0, 0], np.log([0.7, 0.2]) - np.log(0.1 / 3), rtol=1e-6)
