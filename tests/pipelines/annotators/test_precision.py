"""Mixed precision, up to the head; and compiled networks."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labelstore.errors import OptionError
from labelstore.pipelines.annotators import AnnotatorSpec, EnsembleSpec, Preprocessing, load_annotator, load_ensemble
from labelstore.pipelines.annotators.precision import fit_precision, mixed

CPU = torch.device("cpu")


class Watched(nn.Module):
    """Keeps the types that its layers give."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 8, 8)
        self.head = nn.Linear(6, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        logits = self.head(features.mean((2, 3)))
        self.seen += [features.dtype, logits.dtype]
        return logits


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network that `own_models:watched` gives."""
    torch.manual_seed(2)
    network, module = Watched(), ModuleType("own_models")
    module.watched = lambda: (network, Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bilinear"))
    monkeypatch.setitem(sys.modules, "own_models", module)
    return network


def share_in_bfloat16(values: Tensor) -> float:
    return float((values.bfloat16().float() == values).float().mean())


def test_the_usual_precision_of_a_cpu_is_float32() -> None:
    assert fit_precision(None, CPU) == "float32"
    assert fit_precision("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize("chosen", ["float16", "bf16", ""])
def test_an_unknown_precision_is_refused(chosen: str) -> None:
    with pytest.raises(OptionError, match=rf"--precision {chosen}: expected float32 or bfloat16"):
        fit_precision(chosen, CPU)
    with pytest.raises(OptionError, match="expected float32 or bfloat16"):
        load_ensemble(EnsembleSpec((AnnotatorSpec("timm:test_resnet", random_weights=True),), precision=chosen))


def test_float32_stays_so_inside_somebody_elses_autocast(watched: Any) -> None:
    annotator = load_annotator(AnnotatorSpec("own_models:watched"))
    watched.seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        annotator.dense(torch.randn(2, 3, 32, 32))
    assert set(watched.seen) == {torch.float32}


def test_the_body_runs_in_bfloat16_and_the_head_in_float32(watched: Any) -> None:
    annotator = load_annotator(AnnotatorSpec("own_models:watched"), precision="bfloat16")
    assert set(watched.seen) == {torch.float32}  # the tests on loading
    watched.seen.clear()
    annotator.dense(torch.randn(2, 3, 32, 32))
    assert watched.seen == [torch.bfloat16, torch.float32]
    assert not torch.is_autocast_enabled("cpu")


SLOW = ("timm:test_vit", "timm:test_convnext", "torchvision:shufflenet_v2_x0_5", "torchvision:swin_t")


@pytest.mark.parametrize("model", ["timm:test_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_logits_in_bfloat16_are_near_those_in_float32_and_finer_than_bfloat16(model: str) -> None:
    spec = AnnotatorSpec(model, random_weights=True)
    full, half = load_annotator(spec), load_annotator(spec, precision="bfloat16")
    side = full.info.preprocessing.input_size
    batch = torch.randn(2, 3, side, side)
    expected, got = full.dense(batch), half.dense(batch)
    assert got.dtype == torch.float32
    assert share_in_bfloat16(got) < 0.05
    assert not torch.equal(got, expected)
    scale = (expected - expected.mean(1, keepdim=True)).abs().max()
    assert float((got - expected).abs().max() / scale) < 0.1


def test_the_precision_is_what_members_run_in(watched: Any, tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Conv2d(3, 4, 8, 8).eval(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "program.pt2")
    module, fixed = AnnotatorSpec("own_models:watched"), AnnotatorSpec(str(tmp_path / "program.pt2"))
    for members in ((module,), (module, fixed), (fixed, module)):
        loaded = load_ensemble(EnsembleSpec(members, precision="bfloat16"))
        assert loaded.info.precision == "bfloat16"
        watched.seen.clear()
        loaded.logits([torch.zeros(1, 32, 32, 3, dtype=torch.uint8)])
        assert torch.bfloat16 in watched.seen
    assert load_ensemble(EnsembleSpec((fixed,), precision="float32")).info.precision == "float32"
    with pytest.raises(OptionError, match=r"--precision bfloat16: .*program\.pt2 is a program, and runs as it was saved"):
        load_ensemble(EnsembleSpec((fixed,), precision="bfloat16"))


def test_mixed_precision_ends_where_it_should_whatever_happens(watched: Any) -> None:
    annotator = load_annotator(AnnotatorSpec("own_models:watched"), precision="bfloat16")
    with pytest.raises(RuntimeError):
        annotator.dense(torch.zeros(1, 5, 32, 32))  # five channels
    assert not torch.is_autocast_enabled("cpu")
    with mixed("bfloat16", CPU):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["own_models:watched", "timm:test_resnet", "timm:test_vit"])
def test_a_compiled_network_gives_what_it_gives_otherwise(watched: Any, model: str, precision: str) -> None:
    spec = AnnotatorSpec(model, random_weights=True)
    plain, compiled = load_annotator(spec, precision=precision), load_annotator(spec, precision=precision, compiled=True)
    side = plain.info.preprocessing.input_size
    tolerance = {"float32": 1e-4, "bfloat16": 5e-2}[precision]
    for count in (4, 4, 3):
        batch = torch.randn(count, 3, side, side)
        torch.testing.assert_close(compiled.dense(batch), plain.dense(batch), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
def test_the_usual_precision_of_a_gpu_is_bfloat16_where_it_has_it() -> None:
    device = torch.device("cuda")
    expected = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    assert fit_precision(None, device) == expected
    spec = AnnotatorSpec("timm:resnet10t", random_weights=True)
    full, half = load_annotator(spec, device), load_annotator(spec, device, "bfloat16")
    batch = torch.randn(2, 3, 224, 224, device=device)
    expected_logits, got = full.dense(batch), half.dense(batch)
    assert share_in_bfloat16(got) < 0.05
    scale = (expected_logits - expected_logits.mean(1, keepdim=True)).abs().max()
    assert float((got - expected_logits).abs().max() / scale) < 0.1
