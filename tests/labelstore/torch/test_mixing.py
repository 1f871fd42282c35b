"""Soft labels are mixed in the shares in which timm's Mixup mixes the images."""

from __future__ import annotations

import pytest
import torch
from timm.data import Mixup
from timm.utils import random_seed

from labelstore.errors import OptionError
from labelstore.torch import SoftMixup

BATCH, CLASSES = 8, 5


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one value each, and soft labels."""
    images = torch.arange(1.0, BATCH + 1)[:, None, None, None].expand(BATCH, 3, 16, 16).clone()
    return images, torch.rand(BATCH, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(("mixup_alpha", "cutmix_alpha"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_labels_are_mixed_in_the_shares_of_the_pixels(mode, mixup_alpha, cutmix_alpha):
    images, labels = batch()
    random_seed(3)
    mixup = Mixup(mixup_alpha, cutmix_alpha, mode=mode, label_smoothing=0.0, num_classes=CLASSES)
    mixed, soft = SoftMixup(mixup)(images, labels)
    value, other = torch.arange(1.0, BATCH + 1), torch.arange(float(BATCH), 0, -1)
    share = (mixed.mean(dim=(1, 2, 3)) - other) / (value - other)
    assert share.min() < 0.99, "something was mixed"
    torch.testing.assert_close(soft, share[:, None] * labels + (1 - share)[:, None] * labels.flip(0), atol=1e-5, rtol=0)


def test_one_hot_labels_come_out_as_timms_own():
    images, _ = batch()
    target = torch.arange(BATCH) % CLASSES
    mixup = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=CLASSES)
    random_seed(7)
    expected_images, expected = mixup(images.clone(), target)
    random_seed(7)
    found_images, found = SoftMixup(mixup)(images.clone(), torch.nn.functional.one_hot(target, CLASSES).float())
    assert torch.equal(found_images, expected_images)
    torch.testing.assert_close(found, expected)
    mixup.mixup_enabled = False
    torch.testing.assert_close(SoftMixup(mixup)(images, found)[1], found * 0.9 + 0.02)


@pytest.mark.parametrize(
    "labels", [torch.zeros(BATCH, dtype=torch.int64), torch.zeros(BATCH, CLASSES, dtype=torch.int64), torch.zeros(2, 3)]
)
def test_what_is_no_soft_label_is_refused(labels):
    with pytest.raises(OptionError, match=r"labels: expected soft labels, float \[8, D\]"):
        SoftMixup(Mixup(0.8, num_classes=CLASSES))(batch()[0], labels)


def test_only_timms_mixup_is_wrapped():
    with pytest.raises(OptionError, match="expected a timm.data.Mixup, got function"):
        SoftMixup(lambda images, labels: (images, labels))
