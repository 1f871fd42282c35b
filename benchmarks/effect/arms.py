"""The arms of the study: each is a data set over the same images, and how its batches become targets.

Images, their order and their crops are the same in all arms of a seed; only the targets differ. CutMix draws from a stream of
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset
from torchvision.transforms import v2

from effect.learning import Labels, random_crop, scenes_in
from effect.networks import CROP, Network
from labelstore import LabelMapReader
from labelstore.boxes import WHOLE_IMAGE
from labelstore.torch import SoftLabelDataset, pool

SMOOTHING = 0.1


@dataclass(frozen=True)
class Material:
    """What a study has made before students are trained: the images' folder, stores of their label maps, the teacher."""

    images: Path
    stores: dict[str, Path]
    teacher: Network
    crop: int = CROP
    """Pixels a side of the students' crops."""

    @property
    def transform(self) -> v2.Compose:
        return random_crop(self.crop)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(scenes_in(self.images).classes)

    def reader(self, store: str) -> LabelMapReader:
        return LabelMapReader(self.stores[store])


Arm = tuple[Dataset[Any], Labels]
Make = Callable[[Material], Arm]


def single(material: Material, smoothing: float = 0.0) -> Arm:
    """The label that the image came with."""
    count = len(material.classes)

    def labels(images: Tensor, given: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        return images, one_hot(given[0], count) * (1 - smoothing) + smoothing / count

    return scenes_in(material.images, material.transform), labels


def whole(material: Material, store: str) -> Arm:
    """The soft label of the whole image, whatever the crop."""
    folder, reader = scenes_in(material.images, material.transform), material.reader(store)
    ids = [Path(path).relative_to(material.images).as_posix() for path, _ in folder.samples]
    table = torch.from_numpy(reader.pool(ids, np.tile(WHOLE_IMAGE, (len(ids), 1))))
    folder.samples = [(path, index) for index, (path, _) in enumerate(folder.samples)]
    return folder, lambda images, given: (images, table[given[0]])


def crops(material: Material, store: str) -> Arm:
    """ReLabel: the soft label of the crop, out of the label map."""
    data = SoftLabelDataset(scenes_in(material.images), material.reader(store), material.transform)
    return data, lambda images, given: (images, given[0])


def best_of_crops(material: Material, store: str) -> Arm:
    """The best class of the crop alone: localized, but single."""
    data, _ = crops(material, store)
    return data, lambda images, given: (images, one_hot(given[0].argmax(dim=1), given[0].shape[1]).float())


def wrong_axes(material: Material, store: str) -> Arm:
    """What the public reference does: a box (top, left, bottom, right) to an operator that takes (x1, y1, x2, y2)."""
    reader = material.reader(store)
    data = SoftLabelDataset(scenes_in(material.images), reader, material.transform, yields="maps")

    def labels(images: Tensor, given: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        mixed_up = given[0]["box"][:, [1, 0, 3, 2]]
        return images, pool(given[0], mixed_up, reader.num_classes, map_size=reader.map_size)

    return data, labels


def online(material: Material) -> Arm:
    """Distillation: the teacher looks at every crop."""

    @torch.inference_mode()
    def soft(images: Tensor) -> Tensor:
        return material.teacher(images).softmax(dim=1)

    return scenes_in(material.images, material.transform), lambda images, _: (images, soft(images).clone())


def with_cutmix(arm: Arm, seed: int) -> Arm:
    """The same images with CutMix: boxes and mixtures by a stream of random numbers of its own."""
    data, plain = arm
    mix: v2.CutMix | None = None
    state = torch.Generator().manual_seed(seed).get_state()

    def labels(images: Tensor, given: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        nonlocal mix, state
        images, targets = plain(images, given)
        mix = mix or v2.CutMix(num_classes=targets.shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            mixed = mix(images, targets)
            state = torch.get_rng_state()
        return mixed

    return data, labels
