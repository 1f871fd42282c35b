"""The public reference's way to soft labels, written anew from its description: what ours is measured against."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from maps import CLASSES
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from labelstore import LabelMap


class ReferenceFiles:
    """A torch file a map, loaded one by one; RoIAlign of the dense map.

    Each file holds float32 ``[2, K, H, W]``: scores and classes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, maps: LabelMap, count: int) -> None:
        """Write ``count`` files, of as many maps as there are over and over."""
        self.folder.mkdir()
        contents = []
        for scores, classes in zip(maps.scores, maps.classes, strict=True):
            buffer = io.BytesIO()
            torch.save(torch.from_numpy(np.stack([scores, classes.astype(np.float32)])), buffer)
            contents.append(buffer.getvalue())
        for row in range(count):
            Path(self.path(row)).write_bytes(contents[row % len(contents)])

    def path(self, row: int) -> str:
        return f"{self.folder}/{row:07}.pt"

    def load(self, row: int) -> Tensor:
        loaded: Tensor = torch.load(self.path(row), weights_only=True)
        return loaded

    def soft_labels(self, rows: NDArray[np.int64], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        maps = torch.stack([self.load(row) for row in rows.tolist()])
        return dense_pool(maps, torch.from_numpy(boxes)).numpy()


@torch.no_grad()
def dense_pool(maps: Tensor, boxes: Tensor, num_classes: int = CLASSES) -> Tensor:
    """Soft labels ``[B, num_classes]`` of the reference's maps ``[B, 2, K, H, W]``, on their device, by way of dense maps.

    Boxes are in the order that the operator takes, x before y; the reference's own code mixes the two up.
    """
    scores, classes = maps.unbind(1)
    count, _, height, width = scores.shape
    dense = scores.new_zeros(count, num_classes, height, width).scatter_(1, classes.long(), scores)
    x1, y1, x2, y2 = boxes.to(scores.dtype).unbind(1)
    batch = torch.arange(count, device=maps.device, dtype=scores.dtype)
    regions = torch.stack([batch, x1 * width - 0.5, y1 * height - 0.5, x2 * width - 0.5, y2 * height - 0.5], dim=1)
    pooled = roi_align(dense, regions, output_size=(1, 1), sampling_ratio=-1, aligned=False)
    return torch.softmax(pooled[:, :, 0, 0], dim=1)
