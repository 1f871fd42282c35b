"""PyTorch Lightning on soft labels, pooled where the model is: the loader yields maps of a few kB and boxes.

labelstore annotate && python examples/train_lightning.py [STORE] [IMAGES]     (pip install 'labelstore[lightning]')
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from photos import Photos
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset, pool

TRANSFORM = v2.Compose(
    [v2.RandomResizedCrop(96), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
)


class Classifier(lightning.LightningModule):
    def __init__(self, num_classes: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_classes, self.map_size = num_classes, map_size
        self.model = torchvision.models.mobilenet_v3_small(num_classes=num_classes)

    def training_step(self, batch: tuple[Tensor, dict[str, Tensor]], _: int) -> Tensor:
        images, maps = batch
        # (+) on the device to which Lightning has brought the batch
        soft = pool(maps, maps["box"], self.num_classes, map_size=self.map_size)
        return torch.nn.functional.cross_entropy(self.model(images), soft)

    def on_train_epoch_end(self) -> None:
        print(f"epoch {self.current_epoch + 1}: loss {self.trainer.callback_metrics['train_loss']:.3f}")

    def on_train_batch_end(self, outputs: Any, *_: Any) -> None:
        self.log("train_loss", outputs["loss"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(store: str, images: Path, epochs: int = 3) -> None:
    lightning.seed_everything(0, verbose=False)
    photos, reader = Photos(images), LabelMapReader(store)
    data = SoftLabelDataset(photos, reader, TRANSFORM, ids=photos.ids, class_map="same", yields="maps")  # (+)
    loader = DataLoader(data, batch_size=6, shuffle=True, num_workers=2, drop_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Classifier(reader.num_classes, reader.map_size), loader)


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["labels.zarr", "labelstore-samples"][len(sys.argv) - 1 :]
    train(arguments[0], Path(arguments[1]))
