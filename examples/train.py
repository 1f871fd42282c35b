"""A plain PyTorch loop on soft labels: a few steps on the sample store.

labelstore annotate && python examples/train.py [STORE] [IMAGES]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop, to_tensor

from labelstore import LabelMapReader


class SoftCrops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops and their soft labels."""

    def __init__(self, root: Path, reader: LabelMapReader) -> None:
        self.root, self.reader = root, reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.root / self.reader.ids[row]).convert("RGB")
        top, left, height, width = RandomResizedCrop.get_params(image, scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3])
        x, y = image.width, image.height
        soft = self.reader.pool([row], [(left / x, top / y, (left + width) / x, (top + height) / y)])[0]
        return to_tensor(resized_crop(image, top, left, height, width, [96, 96])), torch.from_numpy(soft)


def train(store: str, images: Path, epochs: int = 3) -> list[float]:
    """Return the loss of each epoch."""
    torch.manual_seed(0)
    reader = LabelMapReader(store)
    loader = DataLoader(SoftCrops(images, reader), batch_size=8, num_workers=2, shuffle=True)
    model = torchvision.models.mobilenet_v3_small(num_classes=reader.num_classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for epoch in range(epochs):
        for batch, soft in loader:
            loss = torch.nn.functional.cross_entropy(model(batch), soft)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["labels.zarr", "labelstore-samples"][len(sys.argv) - 1 :]
    train(arguments[0], Path(arguments[1]))
