"""A plain PyTorch loop on soft labels: a few steps on the sample store. Lines that labelstore adds are marked with (+).

labelstore annotate && python examples/train.py [STORE] [IMAGES] [--start spawn]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision
from photos import Photos
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset

TRANSFORM = v2.Compose(
    [v2.RandomResizedCrop(96), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
)


def train(store: str, images: Path, start: str = "fork", epochs: int = 3) -> list[float]:
    """Return the loss of each epoch; ``start`` is how the loader's workers come to life."""
    torch.manual_seed(0)
    photos = Photos(images)
    reader = LabelMapReader(store)  # (+)
    data = SoftLabelDataset(photos, reader, TRANSFORM, ids=photos.ids, class_map="same")  # (+)
    print("the first:", reader.class_names[data[0][1].argmax()])  # the parent may read before its workers start
    loader = DataLoader(data, batch_size=6, shuffle=True, num_workers=2, multiprocessing_context=start, drop_last=True)
    cutmix = v2.CutMix(num_classes=reader.num_classes)  # takes soft labels as they are
    model = torchvision.models.mobilenet_v3_small(num_classes=reader.num_classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for epoch in range(epochs):
        for batch in loader:
            inputs, soft = cutmix(*batch)
            loss = torch.nn.functional.cross_entropy(model(inputs), soft)  # (+) the labels are float [B, C]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", default="labels.zarr")
    parser.add_argument("images", nargs="?", type=Path, default=Path("labelstore-samples"))
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork")
    given = parser.parse_args()
    train(given.store, given.images, given.start)
