"""`labelstore annotate` with annotators out of files, ensembles and the other choices of how pixels become logits."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_here, run_installed
from pictures import paint
from toy_annotators import NAMES, Colours

from labelstore import LabelMapReader

BOTH = ("--model", "toy_annotators:colours", "--model", "toy_annotators:shifted")


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """Where annotate puts its store; the current folder is a new one, with eight pictures in `images`."""
    for number, name in enumerate(NAMES):
        paint(tmp_path / "images" / name / f"{number}.png", "lime" if name == "green" else name)  # CSS's green is darker
    monkeypatch.chdir(tmp_path)
    return tmp_path / "labels.zarr"


def annotate(*more: Any):
    return run_here("annotate", "images", "--workers", "0", "--top-k", "3", *more)


def error(shown, code: int) -> str:
    assert shown.code == code
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.message.split("Error: ", 1)[1]


def save_program(file: str, **says: Any) -> None:
    module = Colours().eval()
    module.forward = module.forward_dense
    program = torch.export.export(module, (torch.zeros(2, 3, 56, 56),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, file, extra_files={"labelstore.json": json.dumps(says)} if says else None)


def save_weights(file: str, classes: int = 8) -> None:
    import timm

    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=classes).state_dict(), file)


@pytest.mark.slow
def test_a_program_in_the_current_folder_reaches_the_workers(store):
    save_program("colours.pt2", mean=[0, 0, 0], std=[1, 1, 1], class_names=NAMES)
    shown = run_installed("annotate", "images", "--workers", "1", "--top-k", "3", "--model", "colours.pt2", cwd=store.parent)
    assert (shown.code, [line for line in shown.err.splitlines() if "dashboard" not in line]) == (0, [])
    reader = LabelMapReader(store)
    assert reader.annotator.requested == "colours.pt2"
    best = reader.pool(list(range(8)), [(0, 0, 1, 1)] * 8).argmax(axis=1)
    assert [reader.ids[row].split("/")[0] for row in range(8)] == [reader.class_names[number] for number in best]
    assert "The images' own labels: 100.0% are the best class" in shown.out


def test_a_scripted_program_says_nothing_of_torchs_plans(store):
    module = Colours().eval()
    module.forward = module.forward_dense
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.zeros(2, 3, 56, 56)), "colours.pt")
    shown = run_installed(
        "annotate", "images", "--workers", "0", "--model", "colours.pt", "--image-size", "56", "--mean", "0,0,0", "--std",
        "1,1,1", cwd=store.parent,
    )  # fmt: skip
    assert (shown.code, shown.err) == (0, "")
    reader = LabelMapReader(store)
    assert reader.pool(["red/2.png"], [(0, 0, 1, 1)]).argmax() == NAMES.index("red")


def test_programs_that_are_refused(store):
    Path("broken.pt2").write_text("no program")
    save_weights("weights.pt")
    save_program("odd.pt2", size=3)
    assert "broken.pt2: cannot be loaded as a program" in error(annotate("--model", "broken.pt2"), 1)
    assert "if these are weights: --model NAME --weights FILE" in error(annotate("--model", "weights.pt"), 1)
    assert "odd.pt2: labelstore.json: expected an object with keys out of" in error(annotate("--model", "odd.pt2"), 1)
    assert "nowhere.pt2': no such file" in error(annotate("--model", "nowhere.pt2"), 1)
    save_program("good.pt2")
    assert "good.pt2 has its weights inside" in error(annotate("--model", "good.pt2", "--weights", "weights.pt"), 1)
    assert "good.pt2 is a program, and runs as it was saved" in error(
        annotate("--model", "good.pt2", "--precision", "bfloat16"), 2
    )
    assert not store.exists()


def test_weights_and_classes_out_of_files(store):
    save_weights("pets.pth", 3)
    Path("pets.txt").write_text("n1\tcat\nn2\tdog\nn3\tcow\n")
    shown = annotate("--model", "test_resnet", "--weights", "pets.pth", "--classes", "pets.txt")
    assert shown.code == 0
    reader = LabelMapReader(store)
    assert (reader.num_classes, reader.class_names) == (3, ("cat", "dog", "cow"))
    said = json.loads(run_here("info", "--json").out)
    assert (said["class_names"], said["class_ids"]) == (["cat", "dog", "cow"], ["n1", "n2", "n3"])
    assert said["annotator"]["weights"] == str(store.parent / "pets.pth")
    words = "".join(run_here("info").out.split())
    assert "timm:test_resnetat160px" in words
    assert f"of{store.parent}/pets.pth".replace(" ", "") in words
    words = run_here("inspect", "red/2.png").out
    assert any(name in words for name in ("cat", "dog", "cow"))


def test_weights_that_are_refused(store):
    save_weights("w.pth")
    Path("empty.pth").touch()
    options = ("--model", "test_vit", "--weights")
    assert "w.pth do not fit timm:test_vit, which has" in error(annotate(*options, "w.pth"), 1)
    assert "empty.pth: cannot be read" in error(annotate(*options, "empty.pth"), 1)
    assert "no.pth: no such file" in error(annotate(*options, "no.pth"), 1)
    message = error(annotate(*options, "w.pth", "--weights", "w.pth"), 2)
    assert message == "--weights: expected one file for each --model, got 2 for 1"
    assert "got 1 for 2" in error(annotate(*BOTH, "--weights", "w.pth"), 2)
    assert not store.exists()


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("crater",)


def test_weights_that_would_run_code_are_refused(store):
    for name, data in (("zip.pth", None), ("raw.pth", pickle.dumps(Bomb(), protocol=2))):
        Path(name).write_bytes(data) if data else torch.save({"model": Bomb()}, name)
        message = error(annotate("--model", "test_resnet", "--weights", name), 1)
        assert f"{name}: not only tensors" in message
        assert not Path("crater").exists()


def test_an_ensemble_with_flip(store):
    shown = annotate(*BOTH, "--flip", "--encoding", "topk")
    assert shown.code == 0
    record = LabelMapReader(store).annotator
    assert (record.full_name, record.flip) == ("toy_annotators:colours + toy_annotators:shifted", True)
    words = " ".join(run_here("info").out.split())
    assert "toy_annotators:colours at 56 px + toy_annotators:shifted at 56 px, weights " in words
    assert "averaged with the mirrored image" in words
    (store / "commits" / "c.1.0.0").unlink()
    assert "This run: 4 images" in annotate(*BOTH, "--flip").out
    assert "--flip no (the store has yes)" in error(annotate(*BOTH, "--no-flip"), 1)
    assert "(the store has toy_annotators:colours + toy_annotators:shifted)" in error(annotate(*BOTH[:2]), 1)


def test_an_ensemble_of_other_classes(store):
    message = error(annotate(*BOTH[:2], "--model", "toy_annotators:many_classes"), 1)
    assert "toy_annotators:colours has 8, toy_annotators:many_classes 21841" in message
    assert "for one --model" in error(annotate(*BOTH, "--mean", "0,0,0"), 2)
    assert not store.exists()


@pytest.mark.parametrize("given", ["1,2", "1,2,3,4", "a,b,c", ""])
def test_three_numbers(store, given):
    message = error(annotate(*BOTH[:2], "--std", given), 2)
    assert f"expected three numbers with commas between, got '{given}'" in message


def test_numbers_that_are_no_standard_deviations(store):
    for given in ("0,1,1", "nan,1,1", "-1,1,1"):
        assert "3 positive stds" in error(annotate(*BOTH[:2], "--std", given), 1)
    assert not store.exists()


def test_preprocessing_is_shown(store):
    chosen = ("--mean", "0.1,0.2,0.3", "--std", "0.5,0.5,0.5", "--interpolation", "nearest", "--precision", "bfloat16")
    assert annotate(*BOTH[:2], *chosen).code == 0
    words = " ".join(run_here("info").out.split())
    assert "mean 0.1 0.2 0.3, std 0.5 0.5 0.5, nearest; pillow, bfloat16" in words
    assert "--interpolation lanczos (the store has nearest)" in error(annotate("--interpolation", "lanczos"), 1)


def test_choices_that_there_are_not(store):
    for option, given in (("--precision", "float16"), ("--decoder", "turbo"), ("--interpolation", "cubic")):
        assert f"Invalid value for '{option}'" in error(annotate(*BOTH[:2], option, given), 2)


def test_a_decoder_on_a_gpu_needs_one(store):
    message = error(annotate(*BOTH[:2], "--decoder", "nvjpeg", "--device", "cpu"), 2)
    assert message == "--decoder nvjpeg needs --device cuda, this run is on the CPU; use --decoder pillow"
    message = error(annotate(*BOTH[:2], "--decoder", "nvjpeg", "--exif", "apply"), 2)
    assert message == "--decoder nvjpeg: turns no photographs upright: --exif ignore, or --decoder pillow"
    assert not store.exists()


def test_files_of_classes_that_are_refused(store):
    Path("c.txt").write_text("cat\ndog\n")
    assert "c.txt: expected 8 classes, as the annotator has, got 2" in error(annotate(*BOTH[:2], "--classes", "c.txt"), 2)
    assert "'no.txt' does not exist" in error(annotate(*BOTH[:2], "--classes", "no.txt"), 2)
    Path("c.txt").write_bytes(b"caf\xe9\n")
    assert "c.txt: expected UTF-8 text" in error(annotate(*BOTH[:2], "--classes", "c.txt"), 2)
    assert not store.exists()


def test_as_many_classes_as_imagenet_21k_from_annotate_to_the_reader(store):
    for encoding in ("topk", "spectral"):
        shown = annotate("--model", "toy_annotators:many_classes", "--encoding", encoding, "--store", f"{encoding}.zarr")
        assert shown.code == 0
        reader = LabelMapReader(f"{encoding}.zarr")
        assert reader.num_classes == 21_841
        soft = reader.pool(list(reader.ids), [(0, 0, 1, 1)] * 8)
        assert soft.shape == (8, 21_841)
        first = 21_841 - len(NAMES)
        assert [NAMES[best - first] for best in soft.argmax(axis=1)] == [name.split("/")[0] for name in reader.ids]
        assert reader["red/2.png"].classes.max() >= first
        assert f"of {21_841:,}" in " ".join(run_here("info", f"{encoding}.zarr").out.split())


def test_too_many_classes(store, monkeypatch):
    Path("huge_annotator.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 1, 32, 32), nn.Conv2d(1, 65536, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(store.parent)
    message = error(annotate("--model", "huge_annotator:make"), 1)
    assert "huge_annotator:make has 65536 classes, expected at most 65535" in message
    assert not store.exists()


@pytest.mark.slow
def test_a_compiled_annotator_gives_the_labels_that_it_gives_otherwise(store):
    assert annotate("--model", "toy_annotators:colours", "--compile").code == 0
    assert annotate("--model", "toy_annotators:colours", "--store", "plain.zarr").code == 0
    one, other = LabelMapReader(store), LabelMapReader("plain.zarr")
    assert abs(one.pool(list(range(8)), [(0, 0, 1, 1)] * 8) - other.pool(list(range(8)), [(0, 0, 1, 1)] * 8)).max() < 0.01
