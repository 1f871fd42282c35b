"""Norms folded into convolutions: the same logits, and networks that do not allow it stay as they are."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from labelstore.pipelines.annotators.folding import fold_norms

BATCH = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(module: nn.Module) -> nn.Module:
    """Give norms statistics and weights as training does: a fold that does nothing would be seen."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2.0, generator=generator)
    return module.eval().requires_grad_(False)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3), BatchNormAct2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))


class ReadTwice(Plain):
    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        return self.norm2(self.conv2(self.norm1(first).relu())) + first.mean()


class SharedConvolution(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv1(x)) + self.norm2(self.conv1(x))


class SharedNorm(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv2(self.norm1(self.conv1(x))))


class LooksInside(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv1(x)) * self.norm1.weight.mean()


class NormFirst(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(self.conv1(x).relu()))


class NoStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(8, track_running_stats=False)


def folded(module: nn.Module) -> tuple[int, Tensor, Tensor]:
    with torch.inference_mode():
        before = module(BATCH)
        count = fold_norms(module, lambda: module(BATCH), 1e-5)
        return count, before, module(BATCH)


def test_logits_stay_and_norms_go():
    module = trained(Plain())
    count, before, after = folded(module)
    assert count == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert before.min() == 0  # the second norm's own activation is still there
    torch.testing.assert_close(after, before)
    assert not module.conv1.weight.is_inference()
    assert not module.conv1.weight.requires_grad


@pytest.mark.parametrize("make", [ReadTwice, LooksInside])
def test_what_cannot_be_folded_is_put_back(make):
    module = trained(make())
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    count, before, after = folded(module)
    assert count == 0
    assert torch.equal(before, after)
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(("make", "expected"), [(SharedConvolution, 0), (SharedNorm, 0), (NormFirst, 0), (NoStatistics, 1)])
def test_only_pairs_that_are_pairs_are_folded(make, expected):
    count, before, after = folded(trained(make()))
    assert count == expected
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "densenet121", "nf_regnet_b0"])
def test_real_networks(name):
    module = trained(timm.create_model(name))
    with torch.inference_mode():
        batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        before = module(batch)
        fold_norms(module, lambda: module(batch), 1e-5)
        torch.testing.assert_close(module(batch), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
