"""What a store keeps of its annotators, and that a later run goes on with the same ones or is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from folders import changed, contents, edit_attributes, stamps
from runs import SERIAL
from toy_annotators import Colours

from labelstore import LabelMapReader
from labelstore.errors import AnnotatorError, OptionError, StoreMismatchError
from labelstore.pipelines import shard
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings

BOTH = ("toy_annotators:colours", "toy_annotators:shifted")


def run(images, store, *models: str, forget: bool = True, **choices):
    """Annotate as a new process would: with nothing loaded."""
    if forget:
        shard.keep_annotators()
    choices = {"top_k": 3, "encoding": "topk", **choices} if models else choices
    return annotate(images, str(store), Settings(models or None, **choices), SERIAL, Observer())


def undo_one(store: Path) -> None:
    (store / "commits" / "c.1.0.0").unlink()


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "labels.zarr"


@pytest.fixture
def program(tmp_path) -> Path:
    """The toy annotator as a program, with its class names."""
    module = Colours().eval()
    module.forward = module.forward_dense
    made = torch.export.export(module, (torch.zeros(2, 3, 56, 56),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    says = {"mean": [0, 0, 0], "std": [1, 1, 1], "class_names": Colours.class_names, "class_ids": Colours.class_ids}
    torch.export.save(made, tmp_path / "colours.pt2", extra_files={"labelstore.json": json.dumps(says)})
    return tmp_path / "colours.pt2"


@pytest.fixture
def weights(tmp_path) -> Path:
    """Weights of timm's test_resnet for three classes."""
    import timm

    torch.manual_seed(11)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_an_ensemble_is_recorded_and_a_second_run_gives_the_same_bytes(pictures, store):
    run(pictures, store, *BOTH, flip=True, precision="bfloat16")
    record = LabelMapReader(store).annotator
    assert (record.full_name, record.flip, record.precision) == (" + ".join(BOTH), True, "bfloat16")
    assert [(other.name, other.input_size, other.weights) for other in record.others] == [(BOTH[1], 56, None)]
    before = contents(store)
    undo_one(store)
    assert run(pictures, store, *BOTH).new_rows == 4
    assert contents(store) == before


def test_a_run_that_goes_on_in_the_same_process_gives_the_same_bytes(pictures, store):
    run(pictures, store, *BOTH, flip=True)
    before = contents(store)
    undo_one(store)
    run(pictures, store, *BOTH, forget=False)
    assert contents(store) == before


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"flip": False}, "--flip no (the store has yes)"),
        ({"precision": "float32"}, "--precision float32 (the store has bfloat16)"),
        ({"model": BOTH[0]}, f"--model {BOTH[0]} (the store has {BOTH[0]} + {BOTH[1]})"),
        ({"model": BOTH[::-1]}, f"--model {BOTH[1]} + {BOTH[0]} (the store has {BOTH[0]} + {BOTH[1]})"),
        ({"model": (BOTH[0], "shifted")}, f"--model {BOTH[0]} + shifted (the store has"),
        ({"model": (*BOTH, BOTH[0])}, "(the store has"),
        ({"weights": ("/w.pth",)}, "--weights /w.pth (the store has none)"),
        ({"mean": (0.5, 0.5, 0.5)}, "--mean 0.5,0.5,0.5 (the store has 0.0,0.0,0.0)"),
        ({"std": (0.5, 0.5, 0.5)}, "--std 0.5,0.5,0.5 (the store has 1.0,1.0,1.0)"),
        ({"interpolation": "nearest"}, "--interpolation nearest (the store has bilinear)"),
        ({"decoder": "nvjpeg"}, "--decoder nvjpeg (the store has pillow)"),
    ],
)
def test_other_annotators_are_refused_with_both_values(pictures, store, choice, expected):
    run(pictures, store, *BOTH, flip=True, precision="bfloat16")
    before = stamps(store)
    with pytest.raises(StoreMismatchError) as caught:
        annotate(pictures, str(store), Settings(**choice), SERIAL, Observer())
    assert expected in str(caught.value)
    assert not changed(before, stamps(store))


def test_models_may_be_asked_for_again_as_they_were_or_by_their_full_names(pictures, store, weights):
    names = ("test_resnet", "timm:test_resnet")
    run(pictures, store, *names, weights=(str(weights),) * 2)
    record = LabelMapReader(store).annotator
    assert [record.requested, record.others[0].requested] == list(names)
    assert record.full_name == "timm:test_resnet + timm:test_resnet"
    for models in (names, (names[1], names[1])):
        assert run(pictures, store, *models).new_rows == 0
    with pytest.raises(StoreMismatchError, match=r"--model test_resnet \+ test_vit"):
        run(pictures, store, "test_resnet", "test_vit")
    with pytest.raises(StoreMismatchError, match=r"--model test_resnet \+ resnet"):
        run(pictures, store, "test_resnet", "resnet")


def test_files_are_found_again_from_another_folder(pictures, store, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(pictures, store, "test_resnet", weights=("w.pth",), image_size=64)
    assert LabelMapReader(store).annotator.weights == str(weights)
    before = contents(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given in ((), (str(weights),)):
        undo_one(store)
        run(pictures, store, weights=given)
        assert contents(store) == before
    with pytest.raises(StoreMismatchError, match=rf"--weights {tmp_path}/elsewhere/w\.pth \(the store has {weights}\)"):
        run(pictures, store, weights=("w.pth",))


def test_a_program_is_recorded_by_its_whole_path(pictures, store, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(pictures, store, "colours.pt2")
    reader = LabelMapReader(store)
    assert (reader.annotator.name, reader.annotator.requested) == (str(program), "colours.pt2")
    assert reader.class_names == Colours.class_names
    before = contents(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    undo_one(store)
    run(pictures, store, str(program))
    assert contents(store) == before
    undo_one(store)
    for models in ((), ("colours.pt2",)):  # there may be another file of this name
        with pytest.raises(AnnotatorError, match=rf"name it yourself: --model {program}"):
            run(pictures, store, *models)
    program.rename(tmp_path / "moved.pt2")
    with pytest.raises(AnnotatorError, match=rf"annotator '{program}': no such file"):
        run(pictures, store, str(program))


@pytest.mark.parametrize("kind", ["program", "weights"])
def test_a_file_that_changed_is_refused(pictures, store, program, weights, kind):
    if kind == "program":
        run(pictures, store, str(program))
        module = Colours(shift=1.0).eval()  # the same weights, another program
        module.forward = module.forward_dense
        made = torch.export.export(module, (torch.zeros(2, 3, 56, 56),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(made, program, extra_files={"labelstore.json": '{"mean": [0, 0, 0], "std": [1, 1, 1]}'})
    else:
        run(pictures, store, "test_resnet", weights=(str(weights),))
        state = torch.load(weights, weights_only=True)
        state["fc.bias"] += 1
        torch.save(state, weights)
    undo_one(store)
    before = stamps(store)
    with pytest.raises(
        (AnnotatorError, StoreMismatchError), match=r"expected the (program|annotator) that the store was begun"
    ):
        run(pictures, store, *((str(program),) if kind == "program" else ()))
    assert not changed(before, stamps(store))


def test_preprocessing_that_is_chosen_is_recorded_and_used_again(pictures, store):
    chosen = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7), "interpolation": "nearest"}
    run(pictures, store, BOTH[0], **chosen)
    record = LabelMapReader(store).annotator
    assert {name: getattr(record, name) for name in chosen} == chosen
    before = contents(store)
    for again in ({}, chosen):
        undo_one(store)
        run(pictures, store, BOTH[0], **again)
        assert contents(store) == before
    run(pictures, store.with_name("other.zarr"), BOTH[0])
    assert contents(store.with_name("other.zarr")) != before


def test_preprocessing_is_for_one_model_alone():
    with pytest.raises(OptionError, match="--mean, --std, --interpolation: for one --model"):
        Settings(BOTH, mean=(0.5, 0.5, 0.5)).ensemble_spec()


def test_a_file_of_classes_names_them_in_the_store(pictures, store, weights, tmp_path):
    (tmp_path / "c.txt").write_text("n1\tapple\nn2\tpear\nn3\tplum\n")
    choices = {"weights": (str(weights),), "classes": str(tmp_path / "c.txt")}
    run(pictures, store, "test_resnet", **choices)
    reader = LabelMapReader(store)
    assert (reader.class_names, reader.info.class_ids) == (("apple", "pear", "plum"), ("n1", "n2", "n3"))
    assert run(pictures, store, "test_resnet", **choices).new_rows == 0
    (tmp_path / "c.txt").write_text("apple\npear\nplum\n")
    assert run(pictures, store, "test_resnet", **choices).new_rows == 0
    (tmp_path / "c.txt").write_text("apple\npear\ncherry\n")
    with pytest.raises(StoreMismatchError, match=r"--classes .*c\.txt \(the store has others\)"):
        run(pictures, store, "test_resnet", **choices)


def test_a_file_of_classes_that_are_not_the_annotators_leaves_no_store(pictures, store, tmp_path):
    (tmp_path / "c.txt").write_text("a\nb\nc\n")
    with pytest.raises(OptionError, match="expected 8 classes, as the annotator has, got 3"):
        run(pictures, store, BOTH[0], classes=str(tmp_path / "c.txt"))
    assert not store.exists()


def test_a_store_from_before_ensembles_is_gone_on_with(pictures, store, picture_store):
    shutil.copytree(picture_store, store)

    def forget(attributes):
        for key in ("others", "flip", "precision", "weights"):
            del attributes["annotator"][key]
        del attributes["decoder"]

    edit_attributes(store, forget)
    before = contents(store)
    undo_one(store)
    assert run(pictures, store, BOTH[0]).new_rows == 4
    assert contents(store) == before
