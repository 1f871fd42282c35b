"""Imports of probabilities: refused with the option that says so, or made logits; the doors of the command line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Result, run_here
from numpy.typing import NDArray

from labelstore import LabelMapReader
from labelstore.evaluation import read_predictions
from labelstore.pooling import softmax
from labelstore.records import ScoresRecord

IDS = [f"a/{number}.JPEG" for number in range(6)]
CLASSES, TOP_K, SIDE = 40, 5, 3


def logits() -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(len(IDS), CLASSES, SIDE, SIDE)) * 5).astype(np.float32)


def shares() -> NDArray[np.float32]:
    return np.asarray(np.moveaxis(softmax(np.moveaxis(logits(), 1, -1)), -1, 1))


def best(values: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[Any]]:
    classes = np.argsort(-values, axis=1)[:, :TOP_K]
    return classes.astype(np.uint16), np.take_along_axis(values, classes, axis=1)


def write_dense(root: Path, values: NDArray[Any]) -> list[str]:
    np.savez(root / "maps.npz", logits=values, ids=np.array(IDS))
    return ["arrays", str(root / "maps.npz"), "--encoding", "topk"]


def write_listed(root: Path, values: NDArray[Any]) -> list[str]:
    classes, scores = best(values)
    np.savez(root / "maps.npz", classes=classes, scores=scores, ids=np.array(IDS))
    return ["arrays", str(root / "maps.npz"), "--num-classes", str(CLASSES)]


def write_relabel(root: Path, values: NDArray[Any]) -> list[str]:
    classes, scores = best(values)
    (root / "maps/a").mkdir(parents=True)
    for number, image_id in enumerate(IDS):
        tensor = torch.from_numpy(np.stack([scores[number], classes[number].astype(scores.dtype)]))
        torch.save(tensor, root / "maps" / image_id.replace(".JPEG", ".pt"))
    return ["relabel", str(root / "maps"), "--axes", "yx", "--num-classes", str(CLASSES)]


def write_tokenlabeling(root: Path, values: NDArray[Any]) -> list[str]:
    _, folder, *_ = write_relabel(root, values.astype(np.float16))
    return ["tokenlabeling", folder, "--num-classes", str(CLASSES)]


def write_tar(root: Path, values: NDArray[Any]) -> list[str]:
    classes, scores = best(values)
    (root / "tars").mkdir()
    with tarfile.open(root / "tars/0.tar", "w") as archive:
        for number, image_id in enumerate(IDS):
            members = {"classes.npy": classes[number], "scores.npy": scores[number], "json": {"id": image_id}}
            for ending, content in members.items():
                data = io.BytesIO()
                if isinstance(content, dict):
                    data.write(json.dumps(content).encode())
                else:
                    np.save(data, content)
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = data.tell()
                data.seek(0)
                archive.addfile(member, data)
    return ["webdataset", str(root / "tars"), "--num-classes", str(CLASSES)]


DOORS = {
    "dense": write_dense,
    "listed": write_listed,
    "relabel": write_relabel,
    "tokenlabeling": write_tokenlabeling,
    "tar": write_tar,
}


def imported(store: Path, arguments: list[str], *more: str) -> Result:
    kind, place, *rest = arguments
    return run_here("import", kind, place, store, *rest, "--workers", "0", *more)


def pooled(store: Path, box: NDArray[np.float64]) -> NDArray[np.float32]:
    reader = LabelMapReader(store)
    return reader.pool([*IDS], np.repeat(box, len(IDS), axis=0))


@pytest.mark.parametrize("door", DOORS)
def test_probabilities_are_refused_and_the_option_takes_them(tmp_path: Path, door: str) -> None:
    (tmp_path / "right").mkdir()
    arguments, right = DOORS[door](tmp_path, shares()), DOORS[door](tmp_path / "right", logits())
    refused = imported(tmp_path / "s.zarr", arguments)
    assert refused.code == 1
    assert "expected logits, got probabilities" in refused.message
    assert "--scores probabilities" in refused.message
    assert not (tmp_path / "s.zarr").exists()
    assert imported(tmp_path / "s.zarr", arguments, "--scores", "probabilities").code == 0
    record = LabelMapReader(tmp_path / "s.zarr").info.imported
    assert record is not None
    assert record.scores == ScoresRecord("softmax", floor=1e-12)
    assert imported(tmp_path / "right.zarr", right).code == 0
    one = np.array([[0, 0, 1 / SIDE, 1 / SIDE]])
    assert pooled(tmp_path / "s.zarr", one).argmax(1).tolist() == pooled(tmp_path / "right.zarr", one).argmax(1).tolist()
    np.testing.assert_allclose(pooled(tmp_path / "s.zarr", one).max(1), shares()[:, :, 0, 0].max(1), atol=0.05)
    asked = imported(tmp_path / "s.zarr", arguments, "--scores", "logits")
    assert "scores as logits (the store's: softmax)" in asked.message


@pytest.mark.parametrize("door", ["listed", "relabel", "tar"])
def test_logarithms_of_the_best_probabilities_too(tmp_path: Path, door: str) -> None:
    arguments = DOORS[door](tmp_path, np.log(shares()))
    refused = imported(tmp_path / "s.zarr", arguments)
    assert "got log-probabilities" in refused.message
    assert imported(tmp_path / "s.zarr", arguments, "--scores", "probabilities").code == 0
    one = np.array([[0, 0, 1 / SIDE, 1 / SIDE]])
    np.testing.assert_allclose(pooled(tmp_path / "s.zarr", one).max(1), shares()[:, :, 0, 0].max(1), atol=0.05)


def test_a_sigmoids_probabilities_need_all_classes(tmp_path: Path) -> None:
    each = 1 / (1 + np.exp(-logits().clip(-12, 12)))
    arguments = write_dense(tmp_path, each)
    assert "of each class by itself" in imported(tmp_path / "s.zarr", arguments).message
    assert imported(tmp_path / "s.zarr", arguments, "--scores", "probabilities").code == 0
    arguments = write_listed(tmp_path, each)
    assert "Warning:" in imported(tmp_path / "t.zarr", arguments).message
    refused = imported(tmp_path / "u.zarr", arguments, "--scores", "probabilities")
    assert "whose sums over the listed classes are at most 1" in refused.message


def test_logits_are_not_said_to_be_probabilities(tmp_path: Path) -> None:
    for door, write in (("dense", write_dense), ("listed", write_listed)):
        refused = imported(tmp_path / f"{door}.zarr", write(tmp_path, logits()), "--scores", "probabilities")
        assert "are they logits?" in refused.message
        assert refused.code == 2


def test_a_bad_map_among_probabilities_is_named(tmp_path: Path) -> None:
    values = shares()
    values[5, 3] = 7
    arguments = write_dense(tmp_path, np.concatenate([values[:5]] * 20 + [values[5:]]))
    np.savez(
        tmp_path / "maps.npz", logits=np.concatenate([values[:5]] * 20 + [values[5:]]), ids=[f"{n}.jpg" for n in range(101)]
    )
    # The odd one is among those that are looked at, so what they are has to be said.
    refused = imported(tmp_path / "s.zarr", arguments, "--scores", "probabilities")
    assert "expected values in 0..1, got" in refused.message


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "maps.npz", logits=logits()[:, :1], ids=np.array(IDS))
    assert "at least 2 classes, got 1" in imported(tmp_path / "s.zarr", ["arrays", str(tmp_path / "maps.npz")]).message


def test_predictions_are_held_to_what_they_are_called(tmp_path: Path) -> None:
    store, whole = tmp_path / "s.zarr", logits()[:, :, 0, 0]
    assert imported(store, write_dense(tmp_path, logits())).code == 0
    given = np.asarray(softmax(whole))
    np.savez(tmp_path / "p.npz", ids=np.array(IDS), logits=given)
    command = ["evaluate", str(store), "--predictions", str(tmp_path / "p.npz")]
    refused = run_here(*command)
    assert refused.code == 2
    assert "expected logits, got probabilities" in refused.message
    assert run_here(*command, "--scores", "probabilities").code == 0
    reader = LabelMapReader(store)
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.npz", reader, "probabilities").probabilities, given)
    assert read_predictions(tmp_path / "p.npz", reader, "logits").probabilities.max() < 0.1
