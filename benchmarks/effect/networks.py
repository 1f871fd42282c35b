"""The networks: a small student, and a teacher of ten times its arithmetic; both average over places before the last layer."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

CROP, TEST = 32, 48
"""Pixels of a training crop, and of a whole scene when a student looks at it: objects are then about as large as in crops."""
Layer = tuple[int, int]
"""Channels, and the stride."""
STUDENT: tuple[Layer, ...] = ((16, 2), (32, 1), (64, 2), (64, 1))
TEACHER: tuple[Layer, ...] = ((32, 1), (64, 2), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1))


def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Network(nn.Module):
    """Convolutions, 4 pixels a place in the end.

    ``forward_dense`` makes it an annotator (docs/annotators.md). Input: RGB in [-1, 1].
    """

    def __init__(self, layers: tuple[Layer, ...], classes: tuple[str, ...]) -> None:
        super().__init__()
        self.class_names = self.class_ids = classes
        inputs = (3, *(channels for channels, _ in layers))
        self.features = nn.Sequential(*(block(before, *layer) for before, layer in zip(inputs, layers, strict=False)))
        self.classifier = nn.Linear(inputs[-1], len(classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits

    def forward_dense(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).movedim(1, 3)).movedim(3, 1)
        return logits


def student(classes: tuple[str, ...], name: str = "small") -> nn.Module:
    """The small student, or one of torchvision's networks by its name."""
    if name == "small":
        return Network(STUDENT, classes)
    return torchvision.models.get_model(name, num_classes=len(classes)).to(memory_format=torch.channels_last)


def teacher(classes: tuple[str, ...]) -> Network:
    return Network(TEACHER, classes)


def pixels(images: Tensor) -> Tensor:
    """uint8 ``[B, 3, h, w]`` to what networks take."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
