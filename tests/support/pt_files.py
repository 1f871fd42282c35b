"""Folders of one file a map, as the authors of ReLabel and TokenLabeling write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

IDS = ("a/1.JPEG", "a/2.JPEG", "b/3.JPEG", "b/4.JPEG", "b/5.JPEG", "b/6.JPEG")
CLASSES, TOP_K, HEIGHT, WIDTH = 12, 3, 4, 6


def maps(count: int = len(IDS), seed: int = 0, classes: int = CLASSES, top_k: int = TOP_K) -> torch.Tensor:
    """Label maps ``[n, 2, K, H, W]``: scores, best first, and class numbers."""
    rng = np.random.default_rng(seed)
    listed = np.argsort(rng.random((count, classes, HEIGHT, WIDTH)), axis=1)[:, :top_k]
    scores = -np.sort(-rng.normal(0, 4, listed.shape), axis=1)
    return torch.from_numpy(np.stack([scores, listed], axis=1).astype(np.float32))


def write_folder(root: Path, tensors: torch.Tensor | None = None, ids: tuple[str, ...] = IDS) -> Path:
    """Write a file for each id."""
    for image_id, tensor in zip(ids, maps(len(ids)) if tensors is None else tensors, strict=True):
        file = (root / image_id).with_suffix(".pt")
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensor.clone(), file)
    return root


def read_folder(root: Path) -> torch.Tensor:
    """All files' tensors, in order of their names."""
    return torch.stack([torch.load(file, weights_only=True) for file in sorted(root.rglob("*.pt"))])
