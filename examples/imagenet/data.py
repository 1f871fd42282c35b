"""Training images with soft or single labels, and the sets to evaluate on."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.data.distributed import DistributedSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from imagenet.processes import Processes
from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset, follow

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP_SHARE = 0.875
"""Of the shorter side, in evaluation."""


class Lighting(torch.nn.Module):
    """Noise along the principal components of ImageNet's colours (Krizhevsky et al. 2012). Leaves every pixel in its place."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        values = torch.tensor([0.2175, 0.0188, 0.0045])
        vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
        self.components = vectors * values

    def forward(self, image: Tensor) -> Tensor:
        return image + (self.components @ (torch.randn(3) * self.deviation)).view(3, 1, 1)


def training_transform(given: Namespace) -> v2.Compose:
    colours = [v2.ColorJitter(given.jitter, given.jitter, given.jitter)] if given.jitter else []
    light = [Lighting(given.lighting)] if given.lighting else []
    return v2.Compose(
        [
            v2.RandomResizedCrop(given.image_size),
            v2.RandomHorizontalFlip(),
            *colours,
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            *light,
            v2.Normalize(MEAN, STD),
        ]
    )


def evaluation_transform(image_size: int) -> v2.Compose:
    shrink = [v2.Resize(round(image_size / _CROP_SHARE)), v2.CenterCrop(image_size)]
    return v2.Compose([*shrink, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def training_set(given: Namespace) -> tuple[Dataset[Any], tuple[str, ...]]:
    """(image, label) of every image, and the classes: soft labels ``[C]`` out of a store, else the folder's number."""
    transform = training_transform(given)
    if given.store is None:
        folder = ImageFolder(given.train, transform)
        return folder, tuple(folder.classes)
    folder = ImageFolder(given.train)  # the store's boxes are of images before any transform
    followed = follow(transform, trusted=[Lighting])
    reader = LabelMapReader(given.store)
    return SoftLabelDataset(folder, reader, followed, class_map=given.class_map, missing=given.missing), tuple(folder.classes)


def training_loader(data: Dataset[Any], given: Namespace, processes: Processes) -> DataLoader[Any]:
    """Batches of this process. An epoch's are made anew by `begin_epoch`."""
    each, rest = divmod(given.batch_size, processes.count)
    if rest or not each:
        raise SystemExit(f"--batch-size {given.batch_size}: expected a multiple of the {processes.count} processes")
    share: DistributedSampler[Any] = DistributedSampler(data, processes.count, processes.rank, seed=given.seed, drop_last=True)
    return _loader(data, each, given, sampler=share, drop_last=True, generator=torch.Generator())


def begin_epoch(loader: DataLoader[Any], epoch: int, given: Namespace, processes: Processes) -> None:
    """Let order, crops and mixtures of an epoch follow from its number alone, so that a run can go on from any of them."""
    loader.sampler.set_epoch(epoch)
    seed = given.seed * 1_000_003 + epoch * processes.count + processes.rank
    loader.generator.manual_seed(seed)  # of it the workers' own seeds are drawn
    torch.manual_seed(seed)


Truth = Callable[[Tensor, Tensor], Tensor]
"""Classes ``[B]`` that were said, and places ``[B]`` in the set, to how right they are; negative: not to be counted."""


def evaluation_sets(given: Namespace, classes: tuple[str, ...]) -> dict[str, tuple[ImageFolder, Truth]]:
    """The sets by name, each with how to tell what is right."""
    transform = evaluation_transform(given.image_size)
    validation = ImageFolder(given.validation, transform)
    if tuple(validation.classes) != classes:
        raise SystemExit(f"{given.validation}: expected the training images' {len(classes)} classes, found others")
    sets: dict[str, tuple[ImageFolder, Truth]] = {"validation": (validation, _single(torch.tensor(validation.targets)))}
    if given.real is not None:
        sets["ReaL"] = validation, _several(json.loads(given.real.read_text()), validation, len(classes))
    if given.v2 is not None:
        matched = ImageFolder(given.v2, transform)
        numbers = torch.tensor([int(name) for name in matched.classes])  # in the order of text: 0, 1, 10, 100, ...
        sets["ImageNetV2"] = matched, _single(numbers[matched.targets])
    return sets


def evaluation_loader(data: ImageFolder, given: Namespace, processes: Processes) -> DataLoader[Any]:
    """This process's share, none twice: (image, place in the set)."""
    places = range(processes.rank, len(data), processes.count)
    numbered = ImageFolder(data.root, data.transform)
    numbered.samples = [(path, place) for place, (path, _) in enumerate(data.samples)]
    return _loader(Subset(numbered, places), max(1, given.batch_size // processes.count), given)


def _loader(data: Dataset[Any], batch: int, given: Namespace, **more: Any) -> DataLoader[Any]:
    return DataLoader(data, batch, num_workers=given.workers, pin_memory=torch.cuda.is_available(), **more)


def _single(targets: Tensor) -> Truth:
    return lambda said, places: (said == targets[places]).float()


def _several(lists: list[list[int]], folder: ImageFolder, count: int) -> Truth:
    """ReaL's: any of an image's classes is right, and images without one are not counted. Lists go by file names."""
    names = [Path(path).name for path, _ in folder.samples]
    if len(lists) != len(names):
        raise SystemExit(f"--real: expected a list for each of {len(names)} validation images, found {len(lists)}")
    right = torch.zeros(len(names), count, dtype=torch.bool)
    for place, classes in zip(sorted(range(len(names)), key=names.__getitem__), lists, strict=True):
        right[place, classes] = True
    known = right.any(dim=1)
    return lambda said, places: torch.where(known[places], right[places, said].float(), -1.0)
