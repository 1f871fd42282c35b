"""Bytes a map of a whole store, and how far its pooled soft labels are from those of the unquantised maps.

Maps come from a file with `classes` uint16 and `scores` float32 [N, K', H, W] (--maps FILE.npz), or are made here of crops
of the sample photographs, by EfficientNet-Lite0 at 475 px. For comparison: one file a map as the public reference keeps
them (torch.save of float32 [2, K, H, W]).

python benchmarks/store_size.py [--maps FILE.npz] [--top-k 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from crops import random_crops
from maps import CLASSES, load_maps, pack, write_store
from numpy.typing import NDArray

from labelstore import LabelMapReader
from labelstore.boxes import box_weights, check_boxes
from labelstore.pooling import softmax
from labelstore.summary import folder_bytes

GOAL_BYTES, GOAL_L1, GOAL_L1_SHARP = 2150, 5e-4, 1.5e-3


def pool_exact(classes: NDArray[np.uint16], scores: NDArray[np.float32], boxes: NDArray[np.float64], sharpen: float) -> NDArray:
    """Soft labels of maps as they are, in float64."""
    wy, wx = box_weights(check_boxes(boxes, len(boxes)), classes.shape[2:])
    weights = (wy[:, None, :, None] * wx[:, None, None, :] * scores.astype(np.float64)).ravel()
    column = classes.astype(np.int64) + (np.arange(len(classes)) * CLASSES)[:, None, None, None]
    logits = np.bincount(column.ravel(), weights, len(classes) * CLASSES).reshape(-1, CLASSES) * sharpen
    return softmax(logits)


def measure(classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> dict[str, float]:
    result = {}
    boxes = random_crops(len(classes))
    with tempfile.TemporaryDirectory() as scratch:
        for name, sharpen in (("l1", 1.0), ("l1_sharp", 2.5)):
            store = Path(scratch, f"{name}.zarr")
            write_store(store, pack(classes, scores * np.float32(sharpen)))
            soft = LabelMapReader(store).pool(np.arange(len(classes)), boxes)
            distance = np.abs(soft - pool_exact(classes, scores, boxes, sharpen)).sum(axis=1)
            result |= {f"{name}_mean": float(distance.mean()), f"{name}_max": float(distance.max())}
            result["bytes_a_map"] = max(result.get("bytes_a_map", 0.0), folder_bytes(store) / len(classes))
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(np.stack([scores[0], classes[0].astype(np.float32)])), buffer)
    return result | {"reference_bytes_a_map": len(buffer.getvalue())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    classes, scores = load_maps(options.maps, options.top_k)
    result = measure(classes, scores)
    print(f"{len(classes)} maps of {classes.shape[2]}x{classes.shape[3]}, top {options.top_k}, encoding topk")
    ratio = result["reference_bytes_a_map"] / result["bytes_a_map"]
    print(f"  bytes a map, whole store    {result['bytes_a_map']:8.0f}   (goal {GOAL_BYTES}; a file a map, fp32: "
          f"{result['reference_bytes_a_map']:,.0f}, {ratio:.1f}x)")  # fmt: skip
    print(f"  L1 to unquantised, mean     {result['l1_mean']:8.1e}   (goal {GOAL_L1:.1e}; largest {result['l1_max']:.1e})")
    print(f"  the same, logits x 2.5      {result['l1_sharp_mean']:8.1e}   (goal {GOAL_L1_SHARP:.1e}; "
          f"largest {result['l1_sharp_max']:.1e})")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
