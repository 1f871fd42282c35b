"""CutMix and MixUp of torchvision.transforms.v2 on soft labels: they take them as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.torch import SoftLabelDataset

PLAIN = v2.Compose([v2.Resize((20, 30)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


@pytest.fixture
def soft(pictures, picture_store) -> SoftLabelDataset:
    return SoftLabelDataset(ImageFolder(str(pictures)), LabelMapReader(picture_store), PLAIN, class_map="by_id")


@pytest.mark.parametrize("mix", [v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)])
def test_labels_are_mixed_as_the_images_are(soft, mix):
    images, labels = default_collate(soft.__getitems__([0, 8, 15, 3]))
    torch.manual_seed(1)
    mixed_images, mixed_labels = mix(images, labels)
    other_images, other_labels = images.roll(1, 0), labels.roll(1, 0)
    different = (images - other_images).abs() > 1e-3
    if isinstance(mix, v2.MixUp):
        share = ((mixed_images - other_images)[different] / (images - other_images)[different]).median()
    else:
        share = (mixed_images == images).all(dim=1)[(images != other_images).any(dim=1)].float().mean()
    assert 0 < share < 1
    np.testing.assert_allclose(mixed_labels, share * labels + (1 - share) * other_labels, atol=2e-3)
    torch.testing.assert_close(mixed_labels.sum(dim=1), torch.ones(4))


def test_in_a_loaders_collate_function(soft):
    mix = v2.RandomChoice([v2.CutMix(num_classes=3), v2.MixUp(num_classes=3)])
    loader = DataLoader(soft, batch_size=7, shuffle=True, collate_fn=lambda batch: mix(*default_collate(batch)))
    for images, labels in loader:
        assert images.shape == (7, 3, 20, 30)
        assert (labels.shape, labels.dtype) == ((7, 3), torch.float32)
        torch.testing.assert_close(labels.sum(dim=1), torch.ones(7))
        loss = torch.nn.functional.cross_entropy(torch.zeros(7, 3), labels)
        torch.testing.assert_close(loss, torch.tensor(3.0).log())
