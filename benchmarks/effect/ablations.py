"""Arms of the ablations: labels that differ from ReLabel's in one thing, out of all of the teacher's logits in float32.

What `labelstore annotate` can be asked for (the K best classes, baselines, encodings) is a store of its own instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset

from effect.arms import Arm, Make, Material, best_of_crops, crops, wrong_axes
from effect.learning import load_scenes, scenes_in
from effect.networks import CROP, TEST, pixels
from effect.study import Workshop
from labelstore.torch import follow, pool, pool_logits

TOP_K = (1, 3, 5, 10)
SHARES = (0.1, 0.3)
"""Of the teacher's images: worse annotators."""


class Boxed(Dataset[Any]):
    """(image, place in the folder, box of the crop)."""

    def __init__(self, material: Material) -> None:
        self._folder, self._crop = scenes_in(material.images), follow(material.transform)

    def __len__(self) -> int:
        return len(self._folder)

    def __getitem__(self, index: int) -> tuple[Any, int, Tensor]:
        image, box = self._crop(self._folder[index][0])
        return image, index, box


@torch.inference_mode()
def dense_logits(material: Material) -> Tensor:
    """The teacher's maps of the images, ``[N, C, H, W]``."""
    whole, _, _ = load_scenes(material.images, material.crop * TEST // CROP)
    device = next(material.teacher.parameters()).device
    return torch.cat([material.teacher.forward_dense(pixels(part.to(device))).cpu() for part in whole.split(100)]).clone()


def dense(material: Material, coarser: int = 1, probabilities: bool = False) -> Arm:
    """ReLabel on all logits in float32: on maps averaged over so many places a side, or on pooled probabilities."""
    maps = avg_pool2d(dense_logits(material), coarser)
    values = maps.softmax(dim=1) if probabilities else maps
    classes = torch.arange(maps.shape[1]).view(1, -1, 1, 1).expand(1, *maps.shape[1:])

    def labels(images: Tensor, given: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        rows, boxes = given
        packed = {"classes": classes.expand(len(rows), -1, -1, -1), "scores": values[rows]}
        soft = (pool_logits if probabilities else pool)(packed, boxes, maps.shape[1])
        return images, soft

    return Boxed(material), labels


def stores_asked_for(shop: Workshop) -> dict[str, tuple[tuple[str, ...], float]]:
    """By arm: what `annotate` is asked for, and the share of the teacher's images."""
    asked: dict[str, tuple[tuple[str, ...], float]] = {
        f"top {k}": (("--encoding", "topk", "--top-k", str(k)), 1.0) for k in TOP_K if k < len(shop.study.classes)
    }
    asked["top 5, absent at zero"] = ("--encoding", "topk", "--baseline", "zero"), 1.0
    asked["spectral, 10x10 frequencies"] = ("--frequencies", "10"), 1.0
    asked["all logits, 8 bits"] = ("--encoding", "topk", "--top-k", str(len(shop.study.classes))), 1.0
    asked |= {f"annotator of {share:.0%} of the images": ((), share) for share in SHARES}
    return asked


def make_stores(shop: Workshop) -> None:
    """Make them, before processes ask for them side by side."""
    for name, (options, share) in stores_asked_for(shop).items():
        shop.store(name, options, share)


def stored_arms(shop: Workshop) -> dict[str, Make]:
    """Arms of stores that `annotate` makes with other options, or with a worse annotator."""
    asked = stores_asked_for(shop)

    def arm(name: str) -> Make:
        options, share = asked[name]

        def make(material: Material) -> Arm:
            store = shop.store(name, options, share)
            return crops(Material(material.images, {name: store}, material.teacher), name)

        return make

    return {name: arm(name) for name in asked}


def ablations(shop: Workshop, store: str) -> dict[str, Make]:
    """All of them, by name."""
    return {
        "best class of the crop": lambda material: best_of_crops(material, store),
        "wrong axes": lambda material: wrong_axes(material, store),
        **stored_arms(shop),
        "all logits, float32": dense,
        "pooled probabilities": lambda material: dense(material, probabilities=True),
        "map of 6x6": lambda material: dense(material, 2),
        "map of 3x3": lambda material: dense(material, 4),
    }
