"""One training, the same for every arm: AdamW (SGD for the teacher), a warm-up and a cosine, over a DataLoader's batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from effect.networks import CROP, TEST, Network, pixels


def random_crop(side: int = CROP) -> v2.Compose:
    """As on ImageNet: 8 to 100 % of the area. No flips: digits have none."""
    return v2.Compose([v2.RandomResizedCrop(side), v2.PILToTensor()])


@dataclass(frozen=True)
class Schedule:
    """What every arm of a study has alike. The learning rate is the arm's, and tuned."""

    epochs: int
    batch: int = 32
    decay: float = 0.05
    warmup: float = 0.3
    """Share of the steps. With a tenth, one seed in five did not learn at a rate at which the others did best."""
    sgd: bool = False
    """With momentum, instead of AdamW."""


Labels = Callable[[Tensor, tuple[Any, ...]], tuple[Tensor, Tensor]]
"""Images as the network takes them, and what the data set gave besides: to images and targets of the loss."""


def train(model: Network, data: Dataset[Any], labels: Labels, rate: float, schedule: Schedule, seed: int) -> Network:
    """Train a network where it is. Order and crops of the images follow from the seed alone, whatever the arm."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    loader: DataLoader[Any] = DataLoader(data, schedule.batch, shuffle=True, drop_last=True)
    optimiser = _optimiser(model, rate, schedule)
    steps = schedule.epochs * len(loader)
    pace = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, steps, schedule.warmup))
    model.train()
    for images, given in _batches(loader, schedule.epochs):
        inputs, targets = labels(pixels(images.to(device)), given)
        loss = nn.functional.cross_entropy(model(inputs), targets.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pace.step()
    return model.eval()


def _optimiser(model: nn.Module, rate: float, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.sgd:
        return torch.optim.SGD(model.parameters(), rate, 0.9, weight_decay=schedule.decay, nesterov=True)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=schedule.decay)


def _batches(loader: DataLoader[Any], epochs: int) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
    for _ in range(epochs):
        for images, *given in loader:
            yield images, tuple(given)


def _pace(step: int, steps: int, warmup: float) -> float:
    """The learning rate's factor: up in a line, down in a cosine."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / (steps - rising))


@lru_cache(maxsize=8192)
def _decoded(path: str) -> Image.Image:
    return Image.open(path).convert("RGB")


def scenes_in(root: Path, transform: Any = None) -> ImageFolder:
    """The scenes of a folder, each read and decoded once: what is compared is training, not decoding."""
    return ImageFolder(root, transform, loader=_decoded, allow_empty=True)


@lru_cache(maxsize=4)
def load_scenes(root: Path, side: int = TEST) -> tuple[Tensor, Tensor, list[str]]:
    """All whole scenes of a folder: images ``[N, 3, side, side]`` uint8, labels ``[N]`` and image ids."""
    whole = v2.Compose([v2.Resize((side, side)), v2.PILToTensor()])
    folder = ImageFolder(root, whole, allow_empty=True)
    images = torch.stack([image for image, _ in folder])
    ids = [Path(path).relative_to(root).as_posix() for path, _ in folder.samples]
    return images, torch.tensor(folder.targets), ids


@torch.inference_mode()
def predict(model: Network, images: Tensor, batch: int = 250) -> Tensor:
    """The best class of each image, ``[N]``."""
    device = next(model.parameters()).device
    return torch.cat([model(pixels(part.to(device))).argmax(dim=1).cpu() for part in images.split(batch)])
