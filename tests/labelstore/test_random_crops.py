"""Random boxes are those of torchvision's RandomResizedCrop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from labelstore.boxes import check_boxes
from labelstore.random_crops import random_boxes


@pytest.mark.parametrize("size", [(400, 400), (500, 375), (300, 600), (2000, 200)])
def test_their_sizes_and_places_are_distributed_alike(size):
    width, height = size
    boxes = random_boxes(np.random.default_rng(0), 4000, width / height)
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = []
    for _ in range(1500):
        top, left, h, w = RandomResizedCrop.make_params(RandomResizedCrop(8), [image]).values()
        theirs.append((left / width, top / height, (left + w) / width, (top + h) / height))
    ours = check_boxes(boxes, len(boxes))
    np.testing.assert_allclose(ours.mean(axis=0), np.mean(theirs, axis=0), atol=0.02)
    np.testing.assert_allclose(ours.std(axis=0), np.std(theirs, axis=0), atol=0.02)


def test_half_of_them_are_mirrored_and_all_lie_inside():
    boxes = random_boxes(np.random.default_rng(1), 1000, 0.7)
    assert 400 < (boxes[:, 0] > boxes[:, 2]).sum() < 600
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-12
    assert random_boxes(np.random.default_rng(1), 0).shape == (0, 4)
