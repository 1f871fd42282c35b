"""Weights out of files: which files are read, what they must fit, and what is never unpickled."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from labelstore.errors import AnnotatorError, OptionError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, Preprocessing, load_annotator
from labelstore.pipelines.settings import Settings

SIDE = 32


class Small(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x)).mean((2, 3)))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


@pytest.fixture
def trained() -> nn.Module:
    """A network with weights of its own."""
    torch.manual_seed(7)
    module = Small().eval()
    module.norm.running_mean.normal_()
    return module


@pytest.fixture(autouse=True)
def factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """`own_models:small`, with other weights than `trained`."""
    module: Any = ModuleType("own_models")
    module.small = lambda: (Small(), Preprocessing(SIDE, (0, 0, 0), (1, 1, 1), "bilinear"))
    monkeypatch.setitem(sys.modules, "own_models", module)


def load(file: Path | str, model: str = "own_models:small", size: int | None = None) -> Annotator:
    return load_annotator(AnnotatorSpec(model, size, weights=str(file)))


def save(value: Any, file: Path) -> Path:
    save_file(value, file) if file.suffix == ".safetensors" else torch.save(value, file)
    return file


@torch.no_grad()
def assert_has_the_weights_of(annotator: Annotator, module: nn.Module) -> None:
    side = annotator.info.preprocessing.input_size
    batch = torch.randn(2, 3, side, side)
    torch.testing.assert_close(annotator.whole(batch), module.eval()(batch), rtol=1e-4, atol=1e-4)


# Files that fit


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin"])
def test_weights_of_a_factorys_network(trained: nn.Module, tmp_path: Path, name: str) -> None:
    assert_has_the_weights_of(load(save(trained.state_dict(), tmp_path / name)), trained)


def test_both_kinds_of_file_give_the_same_digest(trained: nn.Module, tmp_path: Path) -> None:
    files = [save(trained.state_dict(), tmp_path / name) for name in ("w.safetensors", "w.pth")]
    first, second = (load(file).info for file in files)
    assert first == second
    assert first.weights_sha256 != load_annotator(AnnotatorSpec("own_models:small")).info.weights_sha256


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("model", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "efficientnet-lite0"])
def test_weights_of_known_networks_with_another_number_of_classes(tmp_path: Path, model: str, name: str) -> None:
    module = build(model, 10)
    annotator = load(save(module.state_dict(), tmp_path / name), model, 64)
    assert (annotator.info.num_classes, annotator.info.class_names, annotator.info.class_ids) == (10, None, None)
    assert_has_the_weights_of(annotator, module)


@pytest.mark.parametrize("model", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "efficientnet-lite0"])
def test_weights_with_as_many_classes_as_imagenet_may_be_of_others(tmp_path: Path, model: str) -> None:
    module = build(model, 1000)
    info = load(save(module.state_dict(), tmp_path / "w.pth"), model, 64).info
    assert (info.num_classes, info.class_names, info.class_ids) == (1000, None, None)
    names = [f"plant {number}" for number in range(1000)]
    info = load(save({"state_dict": module.state_dict(), "classes": names}, tmp_path / "named.pth"), model, 64).info
    assert info.class_names == tuple(names)
    assert load_annotator(AnnotatorSpec(model, 64, random_weights=True)).info.class_ids[281] == "n02123045"


TEN = [f"plant {number}" for number in range(10)]


@pytest.mark.parametrize(
    "beside",
    [
        {"class_names": TEN},
        {"classes": tuple(TEN)},
        {"class_to_idx": dict(zip(reversed(TEN), range(9, -1, -1), strict=True))},
        {"id2label": dict(enumerate(TEN))},
        {"id2label": {str(number): name for number, name in enumerate(TEN)}},
        {"hyper_parameters": {"class_names": TEN}},
        {"meta": {"categories": TEN}},
    ],
)
def test_a_checkpoint_may_name_its_classes(tmp_path: Path, beside: dict[str, Any]) -> None:
    module = build("timm:test_resnet", 10)
    file = save({"model": module.state_dict(), "epoch": 3, **beside}, tmp_path / "w.pth")
    assert load(file, "timm:test_resnet", 64).info.class_names == tuple(TEN)


@pytest.mark.parametrize(
    "beside",
    [{"classes": 10}, {"classes": [1, 2]}, {"class_names": TEN[:9]}, {"class_to_idx": {"a": 1, "b": 2}}, {"id2label": {}}],
)
def test_what_names_no_classes_is_passed_over(tmp_path: Path, beside: dict[str, Any]) -> None:
    module = build("timm:test_resnet", 10)
    assert (
        load(save({"model": module.state_dict(), **beside}, tmp_path / "w.pth"), "timm:test_resnet", 64).info.class_names
        is None
    )


def test_metadata_of_safetensors_may_name_classes(tmp_path: Path) -> None:
    module = build("timm:test_resnet", 10)
    for metadata, names in (
        ({"class_names": json.dumps(TEN)}, tuple(TEN)),
        ({"class_names": "[oh"}, None),
        ({"format": "pt"}, None),
    ):
        save_file(module.state_dict(), tmp_path / "w.safetensors", metadata)
        assert load(tmp_path / "w.safetensors", "timm:test_resnet", 64).info.class_names == names


@pytest.mark.parametrize("model", ["test_vit", "test_convnext", "test_nfnet"])
def test_another_number_of_classes_in_other_heads(tmp_path: Path, model: str) -> None:
    module = build(f"timm:{model}", 7)
    assert load(save(module.state_dict(), tmp_path / "w.pth"), model, 160).info.num_classes == 7


def build(model: str, classes: int) -> nn.Module:
    import timm
    import torchvision

    source, _, name = model.rpartition(":")
    torch.manual_seed(3)
    if source == "torchvision":
        return torchvision.models.get_model(name, num_classes=classes).eval()
    return timm.create_model(name if source else "tf_efficientnet_lite0", num_classes=classes).eval()


WRAPPERS = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": "small"},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}, "args": argparse.Namespace(lr=0.1)},
    "DataParallel": lambda state: prefixed("module.", state),
    "DataParallel in a checkpoint": lambda state: {"state_dict": prefixed("module.", state)},
    "torch.compile": lambda state: prefixed("_orig_mod.", state),
    "compiled and parallel": lambda state: prefixed("module._orig_mod.", state),
    "Lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}},
    "timm's averaged weights": lambda state: {"state_dict": zeros(state), "state_dict_ema": state},
    "torchvision's averaged weights": lambda state: {
        "model": zeros(state),
        "model_ema": {"n_averaged": torch.tensor(9), **prefixed("module.", state)},
    },
    "a checkpoint in a checkpoint": lambda state: {"model": {"state_dict": state}},
    "no counters, as old files": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
    "half precision": lambda state: {key: value.half() for key, value in state.items()},
}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_weights_are_found_in_what_training_scripts_save(trained: nn.Module, tmp_path: Path, kind: str) -> None:
    annotator = load(save(WRAPPERS[kind](trained.state_dict()), tmp_path / "w.pth"))
    if kind == "half precision":
        trained = trained.half().float()
    assert_has_the_weights_of(annotator, trained)


# Files that do not fit


def test_missing_unknown_and_misshapen_tensors_are_named(trained: nn.Module, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    del state["stem.bias"]
    state["neck.weight"] = torch.zeros(3)
    state["norm.weight"] = torch.zeros(5)
    with pytest.raises(AnnotatorError) as caught:
        load(save(state, tmp_path / "w.pth"))
    message = str(caught.value)
    assert f"--weights {tmp_path}/w.pth do not fit own_models:small, which has 9 tensors, the file 9: " in message
    assert "1 tensors are missing (stem.bias); 1 are not the model's (neck.weight); 1 have another shape (" in message
    assert "(norm.weight: expected [6], got [5])" in message


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    file = save(build("timm:test_resnet", 1000).state_dict(), tmp_path / "w.safetensors")
    for model in ("timm:test_vit", "torchvision:shufflenet_v2_x0_5", "efficientnet-lite0", "own_models:small"):
        with pytest.raises(
            AnnotatorError, match=rf"w\.safetensors do not fit {model}, .* are missing \(.*, \.\.\.\); .* not the"
        ):
            load(file, model)


def test_a_factorys_network_keeps_its_number_of_classes(tmp_path: Path) -> None:
    file = save(Small(classes=9).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        AnnotatorError, match=r"2 have another shape \(head\.weight: expected \[4, 6\], got \[9, 6\], head\.bias"
    ):
        load(file)


def test_a_network_of_another_width(tmp_path: Path) -> None:
    state = build("timm:test_resnet", 1000).state_dict()
    state = {key: torch.cat([value, value]) if value.ndim else value for key, value in state.items()}
    with pytest.raises(AnnotatorError, match=r"do not fit timm:test_resnet.* have another shape"):
        load(save(state, tmp_path / "w.pth"), "timm:test_resnet")


# What is no file of weights


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotatorError, match=r"--weights .*: no such file"):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "data",
    [b"", b"<html>Not found</html>", b"hello", b"\x80\x02", b"\x80\x02}q\x00.", bytes(100), b"PK\x03\x04half", b"\x80\xff"],
)
def test_a_broken_file(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AnnotatorError, match=rf"--weights .*/{name}: "):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_short(trained: nn.Module, tmp_path: Path, name: str, share: float) -> None:
    file = save(trained.state_dict(), tmp_path / name)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AnnotatorError, match=rf"--weights .*/{name}: cannot be read as a file of (torch\.save|safetensors): "):
        load(file)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, "expected a state dict of tensors, got nothing"),
        ({"epoch": 3, "arch": "resnet"}, "expected a state dict of tensors, got epoch: int, arch: str"),
        ([torch.zeros(2)], "expected a state dict, got list"),
        (torch.zeros(2), "expected a state dict, got Tensor"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, value: Any, found: str) -> None:
    with pytest.raises(AnnotatorError, match=rf"--weights .*w\.pth: .*{found}"):
        load(save(value, tmp_path / "w.pth"))


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_more_than_tensors_is_never_unpickled(trained: nn.Module, tmp_path: Path, legacy: bool) -> None:
    crater, file = tmp_path / "crater", tmp_path / "w.pth"
    value = {"state_dict": trained.state_dict(), "config": Bomb(crater)}
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(AnnotatorError, match=r"w\.pth: not only tensors: .*torch\.save\(model\.state_dict\(\), \.\.\.\)"):
        load(file)
    assert not crater.exists()
    torch.load(file, weights_only=False)
    assert crater.exists()  # it would have


def test_a_whole_pickled_module_is_refused(trained: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"w\.pth: not only tensors: .*save the state dict alone"):
        load(save(trained, tmp_path / "w.pth"))


def test_files_of_weights_are_counted_against_models() -> None:
    for models, weights in ((("a", "b"), ("w.pth",)), (("a",), ("v.pth", "w.pth"))):
        with pytest.raises(OptionError, match=rf"expected one file for each --model, got {len(weights)} for {len(models)}"):
            Settings(models, weights=weights).ensemble_spec()
    members = Settings(("a", "b"), weights=("/v.pth", "/w.pth")).ensemble_spec().members
    assert [(member.model, member.weights) for member in members] == [("a", "/v.pth"), ("b", "/w.pth")]


def test_a_network_that_looks_at_the_state_dicts_version(tmp_path: Path) -> None:
    """MNASNet refuses a state dict without it, and safetensors keep none."""
    torch.manual_seed(0)
    module = torchvision.models.mnasnet0_5().eval()
    annotator = load(save(module.state_dict(), tmp_path / "mnasnet.safetensors"), "torchvision:mnasnet0_5", 64)
    batch = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(annotator.whole(batch), module(batch), rtol=1e-4, atol=1e-5)
