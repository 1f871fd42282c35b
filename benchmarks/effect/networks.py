"""The networks: a small student, and a teacher of six times its arithmetic; both average over places before the last layer."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

CROP, TEST = 32, 48
"""Pixels of a training crop, and of a whole scene when a student looks at it: objects are then about as large as in crops."""
STUDENT, TEACHER = (16, 32, 64), (32, 64, 128)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Network(nn.Module):
    """Convolutions at three scales, 4 pixels a place in the end.

    ``forward_dense`` makes it an annotator (docs/annotators.md). Input: RGB in [-1, 1].
    """

    def __init__(self, widths: tuple[int, int, int], depth: int, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.class_names = self.class_ids = classes
        first, second, third = widths
        self.features = nn.Sequential(
            block(3, first),
            block(first, second, 2),
            *(block(second, second) for _ in range(depth)),
            block(second, third, 2),
            *(block(third, third) for _ in range(depth)),
        )
        self.classifier = nn.Linear(third, len(classes))
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
        return Network(STUDENT, 1, classes)
    return torchvision.models.get_model(name, num_classes=len(classes)).to(memory_format=torch.channels_last)


def teacher(classes: tuple[str, ...]) -> Network:
    return Network(TEACHER, 2, classes)


def pixels(images: Tensor) -> Tensor:
    """uint8 ``[B, 3, h, w]`` to what networks take."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
