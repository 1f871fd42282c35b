"""Annotators for tests that need no weights: real torch modules that tell colours apart, found by `toy_annotators:NAME`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from labelstore.pipelines.annotators import Preprocessing

PALETTE = {
    "black": (0, 0, 0),
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
}
NAMES = tuple(PALETTE)
CELL = 8
PIXELS = Preprocessing(input_size=7 * CELL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear")


class Colours(nn.Module):
    """Logit of a colour at a location: minus the squared distance of the location's mean colour to it, times 10."""

    class_names = NAMES
    class_ids = tuple(f"colour-{name}" for name in NAMES)

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("palette", torch.tensor(list(PALETTE.values()), dtype=torch.float32))
        self.shift = shift

    def forward_dense(self, x: Tensor) -> Tensor:
        cells = functional.avg_pool2d(x, CELL)
        distance = (cells[:, None] - self.palette[None, :, :, None, None]).square().sum(dim=2)
        return -10.0 * distance + self.shift

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_dense(x).mean(dim=(2, 3))


class NotFinite(Colours):
    """Gives NaN for images with a red top-left corner."""

    def forward_dense(self, x: Tensor) -> Tensor:
        logits = super().forward_dense(x)
        red = (x[:, 0, 0, 0] > 0.9) & (x[:, 1, 0, 0] < 0.1)
        logits[red, 3, 2, 1] = torch.nan
        return logits


class ManyClasses(Colours):
    """As many classes as ImageNet-21k; the colours are the last ones."""

    class_names = None
    class_ids = None

    def forward_dense(self, x: Tensor) -> Tensor:
        logits = super().forward_dense(x)
        rest = logits.new_full((len(logits), 21_841 - len(NAMES), *logits.shape[2:]), -40.0)
        return torch.cat([rest, logits], dim=1)


class FewClasses(Colours):
    """Knows the first three colours."""

    class_names = NAMES[:3]
    class_ids = Colours.class_ids[:3]

    def forward_dense(self, x: Tensor) -> Tensor:
        return super().forward_dense(x)[:, :3]


class Twelve(Colours):
    """The colours, and the first four again a little less."""

    class_names = None
    class_ids = None

    def forward_dense(self, x: Tensor) -> Tensor:
        logits = super().forward_dense(x)
        return torch.cat([logits, logits[:, :4] - 1.0], dim=1)


def twelve() -> tuple[nn.Module, Preprocessing]:
    return Twelve(), PIXELS


def colours() -> tuple[nn.Module, Preprocessing]:
    return Colours(), PIXELS


def shifted() -> tuple[nn.Module, Preprocessing]:
    return Colours(shift=-5.0), PIXELS


def many_classes() -> tuple[nn.Module, Preprocessing]:
    return ManyClasses(), PIXELS


def few_classes() -> tuple[nn.Module, Preprocessing]:
    return FewClasses(), PIXELS


def not_finite() -> tuple[nn.Module, Preprocessing]:
    return NotFinite(), PIXELS
