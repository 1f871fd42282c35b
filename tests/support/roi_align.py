"""Soft labels by torchvision's operator on dense maps: what pooling is held against."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import roi_align


def torchvision_pool(dense: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return soft labels ``[B, C]`` of dense maps ``[B, C, H, W]`` and checked boxes."""
    height, width = dense.shape[2:]
    scaled = np.asarray(boxes) * [width, height, width, height] - 0.5
    rois = torch.from_numpy(np.concatenate([np.arange(len(boxes))[:, None], scaled], axis=1))
    pooled = roi_align(torch.from_numpy(dense), rois, (1, 1), sampling_ratio=-1, aligned=False)[:, :, 0, 0]
    return torch.softmax(pooled, dim=1).numpy()
