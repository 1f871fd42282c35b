"""timm's own transforms and loss on soft labels: the box of each crop is recovered from what the transform did.

labelstore annotate && python examples/train_timm.py [STORE] [IMAGES]
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
from photos import Photos
from timm.data import create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader

from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset, without_geometry


def train(store: str, images: Path, epochs: int = 3) -> list[float]:
    """Return the loss of each epoch."""
    torch.manual_seed(0)
    photos, reader = Photos(images), LabelMapReader(store)
    transform = create_transform(96, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)
    transform = without_geometry(transform)  # (+) RandAugment's shears and turns would move the image under its label
    data = SoftLabelDataset(photos, reader, transform, ids=photos.ids, class_map="same")  # (+)
    loader = DataLoader(data, batch_size=6, shuffle=True, num_workers=2, drop_last=True)
    model = timm.create_model("mobilenetv3_small_050", num_classes=reader.num_classes)
    optimiser, criterion = create_optimizer_v2(model, "adamw", lr=1e-3), SoftTargetCrossEntropy()
    losses = []
    for epoch in range(epochs):
        for inputs, soft in loader:
            loss = criterion(model(inputs), soft)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["labels.zarr", "labelstore-samples"][len(sys.argv) - 1 :]
    train(arguments[0], Path(arguments[1]))
