"""``package.module:factory``: what factories may return, and what is wrong with bad ones."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, Preprocessing, load_annotator

OWN = Preprocessing(32, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "lanczos")


class Small(nn.Module):
    class_names = ("cat", "dog", "other")

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, 8)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(self.stem(x)).mean((2, 3)))


class OwnMap(Small):
    def forward_dense(self, x: Tensor) -> Tensor:
        return self.stem(x)[:, :3] * 2

    def forward(self, x: Tensor) -> Any:
        return self.stem(x)[:, :3].amax((2, 3))


class Detector(Small):
    def forward(self, x: Tensor) -> Any:
        return {"boxes": x, "labels": x}


class Segmenter(Small):
    def forward(self, x: Tensor) -> Any:
        return self.stem(x)


class Flat(Small):
    def forward(self, x: Tensor) -> Any:
        return self.stem(x).flatten(2)


class Infinite(Small):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * torch.inf


class Raising(Small):
    def forward(self, x: Tensor) -> Any:
        raise KeyError("no such layer")


class WrongMap(Small):
    def forward_dense(self, x: Tensor) -> Tensor:
        return self.stem(x)


def raising() -> nn.Module:
    raise RuntimeError("cannot find weights.pt\nin a long story")


def misnamed() -> nn.Module:
    module = Small()
    module.class_names = ("cat", "dog")
    return module


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that loads the annotator that a factory makes."""

    def loaded(factory: Any, size: int | None = None) -> Annotator:
        module = ModuleType("own_models")
        module.factory = factory
        monkeypatch.setitem(sys.modules, "own_models", module)
        return load_annotator(AnnotatorSpec("own_models:factory", size))

    return loaded


def test_module_alone(load: Any) -> None:
    info = load(Small).info
    assert info.name == "own_models:factory"
    assert info.preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    assert (info.map_size, info.num_classes) == ((28, 28), 3)
    assert (info.class_names, info.class_ids) == (("cat", "dog", "other"), None)


def test_module_with_preprocessing(load: Any) -> None:
    annotator = load(lambda: (Small(), OWN))
    assert annotator.info.preprocessing == OWN
    assert annotator.info.map_size == (4, 4)
    assert load(lambda: (Small(), OWN), size=48).info.map_size == (6, 6)


def test_module_is_put_in_eval_mode_and_not_changed_by_batches(load: Any) -> None:
    annotator = load(lambda: (Small(), OWN))
    batch = torch.randn(4, 3, 32, 32)
    first = annotator.dense(batch)
    assert torch.equal(annotator.dense(batch), first)
    torch.testing.assert_close(first.mean((2, 3)), annotator.whole(batch))


def test_own_forward_dense_is_taken_as_it_is(load: Any) -> None:
    annotator = load(lambda: (OwnMap(), OWN))
    batch = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(annotator.dense(batch).amax((2, 3)), annotator.whole(batch) * 2)
    assert annotator.info.map_size == (4, 4)
    assert annotator.linear_error > 1e-4
    assert annotator.row_error != annotator.row_error  # NaN: there is no head to test


def test_an_output_that_is_a_map_is_taken_as_it_is(load: Any) -> None:
    def factory() -> Any:
        module = Segmenter()
        module.class_names = ("cat", "dog", "other", "sky")
        return module, OWN

    annotator = load(factory)
    batch = torch.randn(2, 3, 32, 32)
    assert annotator.info.map_size == (4, 4)
    torch.testing.assert_close(annotator.dense(batch).mean((2, 3)), annotator.whole(batch))


def test_logits_that_are_not_finite_are_left_to_the_rows(load: Any) -> None:
    annotator = load(lambda: (Infinite(), OWN))
    assert not annotator.dense(torch.randn(1, 3, 32, 32)).isfinite().any()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (raising, r"own_models:factory raised RuntimeError: cannot find weights\.pt$"),
        (lambda: "model", r"returned str, expected a torch\.nn\.Module or a pair"),
        (lambda: (Small(), 224), r"returned a tuple \(Small, int\), expected"),
        (lambda: (Small(), OWN, 1), r"returned a tuple \(Small, Preprocessing, int\), expected"),
        (lambda one: one, r"raised TypeError: .*missing 1 required positional argument"),
        ("text", r"expected a factory to call, got str"),
        (Detector, r"no image classifier: expected a tensor of logits \[B, C\], got a dict of 2"),
        (Flat, r"no image classifier: expected logits \[2, C\], or .*\[2, C, h, w\], got torch\.float32 \[2, 4, 784\]"),
        (Segmenter, r"expected 4 class_names, one a class, got 3"),
        (Raising, r"own_models:factory failed on a batch \[2, 3, 224, 224\]: KeyError"),
        (WrongMap, r"expected dense logits \[2, 3, h, w\], got \[2, 4, 28, 28\]"),
        (misnamed, r"expected 3 class_names, one a class, got 2"),
        (lambda: (Small(65_536), OWN), r"65536 classes, expected at most 65535"),
        (lambda: (Small(), Preprocessing(32, (0, 0, 0), (1, 1, 0), "bilinear")), "3 positive stds"),
        (lambda: (Small(), Preprocessing(32, (0, 0, 0), (1, 1, 1), "cubic")), "an interpolation out of nearest"),
        (lambda: (Small(), Preprocessing(32, (0, 0), (1, 1, 1), "bicubic")), "3 finite means"),
    ],
)
def test_bad_factories(load: Any, factory: Any, message: str) -> None:
    with pytest.raises(AnnotatorError, match=message):
        load(factory)


def test_image_that_is_too_small(load: Any) -> None:
    with pytest.raises(AnnotatorError, match=r"does not take images of 4 px \(its own size is 224 px\)"):
        load(Small, size=4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such_package.models:make", r"cannot import 'no_such_package\.models'.*PYTHONPATH"),
        ("pathlib:Pth", r"module 'pathlib' has no 'Pth'.*did you mean Path"),
        ("pathlib:", r"module 'pathlib' has no ''"),
        (":make", r"cannot import ''"),
    ],
)
def test_paths_that_lead_nowhere(model: str, message: str) -> None:
    with pytest.raises(AnnotatorError, match=message):
        load_annotator(AnnotatorSpec(model))


def test_module_that_fails_on_import(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_models.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AnnotatorError, match=r"broken_models.*it fails on import.*ZeroDivisionError"):
        load_annotator(AnnotatorSpec("broken_models:make"))
