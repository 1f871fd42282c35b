"""What networks return: a softmax or sigmoid at the end is taken off, other probabilities are refused, logits pass."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torch.nn import functional

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, Preprocessing, load_annotator
from labelstore.records import ScoresRecord

PIXELS = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
CLASSES = 24


class Net(nn.Module):
    """A classifier with its own end; ``sure``: how large its logits are."""

    def __init__(self, end: Callable[[Tensor], Any] = lambda logits: logits, classes: int = CLASSES, sure: float = 4.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 8, 8)
        self.head = nn.Linear(32, classes)
        self.end, self.sure = end, sure

    def forward(self, x: Tensor) -> Any:
        return self.end(self.sure * self.head(self.stem(x).mean((2, 3))))


class Output(dict[str, Tensor]):
    """As transformers' ModelOutput: a dict with attributes that is no tensor."""

    def __getattr__(self, name: str) -> Tensor:
        if name in self:
            return self[name]
        raise AttributeError(name)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Annotator]:
    def loaded(make: Callable[[], nn.Module], **how: Any) -> Annotator:
        module: Any = ModuleType("unit_models")
        module.net = lambda: (make(), PIXELS)
        monkeypatch.setitem(sys.modules, "unit_models", module)
        return load_annotator(AnnotatorSpec("unit_models:net", **how))

    return loaded


def batch() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def labels(annotator: Annotator) -> Tensor:
    return annotator.dense(batch()).softmax(1)


ENDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "last layer softmax": (lambda: nn.Sequential(Net(), nn.Softmax(dim=-1)), "softmax"),
    "last layer sigmoid": (lambda: nn.Sequential(Net(), nn.Sigmoid()), "sigmoid"),
    "functional": (lambda: Net(lambda logits: functional.softmax(logits, 1)), "softmax"),
    "method": (lambda: Net(lambda logits: logits.softmax(dim=1)), "softmax"),
    "torch.sigmoid": (lambda: Net(torch.sigmoid), "sigmoid"),
    "reshaped": (lambda: Net(lambda logits: torch.softmax(logits, -1).flatten(1)), "softmax"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_softmax_or_sigmoid_at_the_end_is_taken_off(load: Callable[..., Annotator], name: str) -> None:
    make, kind = ENDS[name]
    annotator = load(make)
    assert annotator.info.scores == ScoresRecord(kind, removed=True)
    assert annotator.info.notes == (f"unit_models:net ends in a {kind}, which was taken off",)
    torch.testing.assert_close(annotator.dense(batch()), load(Net).dense(batch()))
    torch.testing.assert_close(annotator.whole(batch()), load(Net).whole(batch()))
    again = load(make, recorded=annotator.info.scores)  # as a worker, and as a run that goes on
    torch.testing.assert_close(again.dense(batch()), annotator.dense(batch()))
    as_it_was = load(make, recorded=ScoresRecord())  # a store of before
    assert as_it_was.dense(batch()).max() <= 1


def test_only_the_end_counts(load: Callable[..., Annotator]) -> None:
    """A softmax inside, as attention has."""
    inside = load(lambda: Net(lambda logits: torch.softmax(logits, 1) * 8 - 4))
    assert inside.info.scores == ScoresRecord()


HIDDEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda logits: torch.softmax(logits, 1) * 1.0, "softmax"),
    "sigmoid": (lambda logits: torch.sigmoid(logits) * 1.0, "sigmoid"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_probabilities_whose_end_is_not_seen_need_the_option(load: Callable[..., Annotator], name: str) -> None:
    end, unit = HIDDEN[name]
    with pytest.raises(AnnotatorError, match="expected logits, got probabilities.*--scores probabilities, or --scores logits"):
        load(lambda: Net(end))
    annotator = load(lambda: Net(end), scores="probabilities")
    assert annotator.info.scores.unit == unit
    assert annotator.info.scores.floor is not None
    torch.testing.assert_close(labels(annotator), labels(load(Net)), atol=1e-4, rtol=1e-3)
    assert load(lambda: Net(end), scores="logits").info.scores == ScoresRecord()


def test_log_probabilities_are_right_as_they_are(load: Callable[..., Annotator]) -> None:
    for scores in (None, "logits", "probabilities"):
        annotator = load(lambda: Net(lambda logits: functional.log_softmax(logits, 1)), scores=scores)
        torch.testing.assert_close(labels(annotator), labels(load(Net)), atol=1e-6, rtol=1e-5)
    assert "log-probabilities" in load(lambda: Net(lambda logits: functional.log_softmax(logits, 1))).info.notes[0]


def test_logits_said_to_be_probabilities_are_refused(load: Callable[..., Annotator]) -> None:
    with pytest.raises(AnnotatorError, match=r"--scores probabilities: expected values in 0..1, got -.*are they logits\?"):
        load(Net, scores="probabilities")


def test_one_class_is_refused_or_made_two(load: Callable[..., Annotator]) -> None:
    with pytest.raises(AnnotatorError, match="one class, whose probability is always 1"):
        load(lambda: Net(classes=1))
    logit = load(lambda: Net(classes=1), scores="logits")
    seen = load(lambda: Net(torch.sigmoid, classes=1))
    hidden = load(lambda: Net(lambda logits: torch.sigmoid(logits) * 1.0, classes=1), scores="probabilities")
    assert logit.info.num_classes == seen.info.num_classes == hidden.info.num_classes == 2
    right = torch.sigmoid(logit.dense(batch())[:, 1])
    for annotator in (logit, seen, hidden):
        torch.testing.assert_close(labels(annotator)[:, 1], right, atol=1e-5, rtol=1e-4)


def test_few_classes_in_range_are_told_to_be_unclear(load: Callable[..., Annotator]) -> None:
    assert load(lambda: Net(HIDDEN["sigmoid"][0], classes=3)).info.unclear
    assert not load(lambda: Net(classes=3)).info.unclear


def test_programs_lose_their_end_too(tmp_path: Path) -> None:
    right = Net(classes=CLASSES).eval()
    net = nn.Sequential(Net(), nn.Softmax(1)).eval()
    net[0].end = nn.Identity()
    images = torch.zeros(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, images), tmp_path / "net.pt")
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    with torch.inference_mode():
        expected = right(torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    for file, size in (("net.pt", 224), ("net.pt2", 32)):
        annotator = load_annotator(AnnotatorSpec(str(tmp_path / file)))
        assert annotator.info.scores == ScoresRecord("softmax", removed=True)
        given = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = right(given)
        torch.testing.assert_close(annotator.whole(given), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(annotator.dense(given).mean((2, 3)), expected, atol=1e-5, rtol=1e-4)


def test_a_networks_own_dense_output_loses_its_end_too(load: Callable[..., Annotator]) -> None:
    class Own(Net):
        def forward_dense(self, x: Tensor) -> Tensor:
            return torch.softmax(self.head(self.stem(x).movedim(1, -1)).movedim(-1, 1), 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.head(self.stem(x).mean((2, 3))), 1)

    annotator = load(Own)
    assert annotator.info.scores.removed
    assert annotator.dense(batch()).min() < 0


@pytest.mark.parametrize("named", [dict, Output])
def test_logits_by_name_are_taken(load: Callable[..., Annotator], named: Any) -> None:
    annotator = load(lambda: Net(lambda logits: named(loss=None, logits=logits)))
    torch.testing.assert_close(annotator.dense(batch()), load(Net).dense(batch()))
    softened = load(lambda: Net(lambda logits: named(logits=torch.softmax(logits, 1))))
    with pytest.raises(AnnotatorError, match="is no image classifier: expected a tensor of logits"):
        load(lambda: Net(lambda logits: (logits, logits)))
    torch.testing.assert_close(softened.dense(batch()), annotator.dense(batch()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_in_another_precision_are_cast(load: Callable[..., Annotator], dtype: torch.dtype) -> None:
    annotator = load(lambda: Net().to(dtype))
    assert annotator.info.notes == (f"unit_models:net: its weights are {str(dtype)[6:]}: cast to float32",)
    torch.testing.assert_close(annotator.dense(batch()), load(Net).dense(batch()), atol=0.05, rtol=0.02)


class Joined(Net):
    """As DINOv2's classifier: class token beside the mean of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Any:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, :1] + 1, tokens], dim=1)
        return self.head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1))


class Teacher(Net):
    """As DeiT with a teacher: the mean of two tokens' logits."""

    def forward(self, x: Tensor) -> Any:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, :1] + 1, tokens[:, :1] - 1, tokens], dim=1)
        return (self.head(tokens[:, 0]) + self.head(tokens[:, 1])) / 2


@pytest.mark.parametrize("make", [Joined, Teacher])
def test_heads_that_read_two_vectors_are_told_in_words(load: Callable[..., Annotator], make: type[Net]) -> None:
    with pytest.raises(AnnotatorError, match=r"its head reads more of an image than the one vector.*give it a forward_dense"):
        load(make)


SMALL = (
    "timm:resnet10t", "timm:mobilenetv3_small_050", "timm:regnetx_002", "timm:lcnet_035", "timm:test_vit",
    "timm:test_resnet", "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small",
)  # fmt: skip
LARGER = ("timm:efficientnet_lite0", "timm:vit_tiny_patch16_224", "timm:convnext_atto", "torchvision:resnet18")
NETWORKS = (*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER))


@pytest.mark.parametrize("classes", [1000, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_real_logits_are_never_refused(name: str, classes: int, load: Callable[..., Annotator]) -> None:
    """Random weights, whose logits may all be tiny; a thousand classes, and two."""
    source, _, model = name.partition(":")
    create = timm.create_model if source == "timm" else torchvision.models.get_model
    named = "pretrained" if source == "timm" else "weights"
    for seed in range(2):
        torch.manual_seed(seed)
        size = {"img_size": 32} if "vit" in name else {}
        make = create(model, **{named: None if source == "torchvision" else False}, num_classes=classes, **size)
        how = Preprocessing(32 if "vit" in name else 64, PIXELS.mean, PIXELS.std, "bilinear")
        module: Any = sys.modules.setdefault("unit_networks", ModuleType("unit_networks"))
        module.net = lambda make=make, how=how: (make, how)
        annotator = load_annotator(AnnotatorSpec("unit_networks:net"))
        assert annotator.info.scores.unit in ("logits", "log_softmax")
        assert not annotator.info.unclear or classes == 2 or "squeezenet" in name  # whose last layer is a ReLU


def test_the_real_weights_of_a_network_are_logits() -> None:
    info = load_annotator(AnnotatorSpec("efficientnet-lite0")).info
    assert (info.scores, info.unclear, info.notes) == (ScoresRecord(), False, ())


@pytest.mark.parametrize("kind", ["ResNet", "ViT", "Dinov2"])
def test_transformers_own_classifiers(load: Callable[..., Annotator], kind: str) -> None:
    small: dict[str, Any] = {"num_labels": 30}
    if kind == "ResNet":
        small |= {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    else:
        small |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = getattr(transformers, f"{kind}Config")(**small)

    def make() -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
        return network

    if kind == "Dinov2":
        with pytest.raises(AnnotatorError, match="its head reads more of an image than the one vector"):
            load(make)
        return
    annotator = load(make)
    assert annotator.info.num_classes == 30
    with torch.inference_mode():
        torch.testing.assert_close(annotator.whole(batch()), make().eval()(batch()).logits, atol=1e-5, rtol=1e-4)
