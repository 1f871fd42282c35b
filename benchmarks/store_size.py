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
import timm
import torch
from numpy.typing import NDArray
from photos import make_photos

from labelstore import LabelMapReader
from labelstore.boxes import box_weights, check_boxes
from labelstore.ids import pack_ids
from labelstore.pipelines.annotators.timm_models import imagenet_labels
from labelstore.pipelines.encoders.topk import best, quantise
from labelstore.pipelines.plan import shard_size
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.pooling import softmax
from labelstore.schema import AnnotatorRecord, Status, StoreInfo
from labelstore.summary import folder_bytes

CLASSES = 1000
GOAL_BYTES, GOAL_L1, GOAL_L1_SHARP = 2150, 5e-4, 1.5e-3


def make_maps(count: int = 128) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    from labelstore.pipelines.annotators import AnnotatorSpec, load_annotator
    from labelstore.pipelines.maps import load_image, to_input

    annotator = load_annotator(AnnotatorSpec("efficientnet-lite0", image_size=475))
    classes, scores = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(make_photos(Path(scratch), count).iterdir()):
            image = load_image(path, annotator.info.preprocessing, "ignore")
            top, chosen = best(annotator.dense(to_input([image], annotator)), 10)
            classes.append(chosen.numpy().astype(np.uint16))
            scores.append(top.numpy().astype(np.float32))
    return np.concatenate(classes), np.concatenate(scores)


def write_store(location: Path, classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> None:
    """A whole store, with ids as ImageNet's, by the parts that annotate uses."""
    count, top_k, height, width = classes.shape
    ids = pack_ids([f"n{row // 50:08}/n{row // 50:08}_{row * 7919 % 30000}.JPEG" for row in range(count)])
    names, wnids = imagenet_labels(timm, CLASSES) or (None, None)
    record = AnnotatorRecord("efficientnet-lite0", "0" * 64, 475, (0.5,) * 3, (0.5,) * 3, "bicubic")
    info = StoreInfo(
        num_rows=count,
        num_classes=CLASSES,
        top_k=top_k,
        map_size=(height, width),
        shard_size=shard_size(count),
        id_bytes=ids.shape[1],
        annotator=record,
        baseline="zero",
        class_names=names,
        class_ids=wnids,
    )
    create_store(str(location), info, ids, np.arange(count, dtype=np.int32) // 50)
    writer = ShardWriter(str(location))
    for shard in range(info.num_shards):
        rows = slice(info.shard_rows(shard).start, info.shard_rows(shard).stop)
        gaps, ranges = quantise(torch.from_numpy(scores[rows].astype(np.float64)))
        made = {"classes": classes[rows], "scores": gaps.numpy(), "score_range": ranges.numpy()}
        fixed = {"status": np.full(len(gaps), Status.DONE, np.uint8)}
        writer.write(shard, {**writer.empty_rows(shard), **made, **fixed, "image_crc32": crc_like(rows)})


def crc_like(rows: slice) -> NDArray[np.uint32]:
    """Numbers as random as checksums are: they must not compress better than the real ones."""
    return np.random.default_rng(rows.start).integers(0, 2**32, rows.stop - rows.start, np.uint32)


def random_crops(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Boxes as RandomResizedCrop draws them: area 8 to 100 %, aspect ratio 3:4 to 4:3."""
    rng = np.random.default_rng(seed)
    area, ratio = rng.uniform(0.08, 1.0, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    width, height = np.minimum(np.sqrt(area * ratio), 1.0), np.minimum(np.sqrt(area / ratio), 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return np.stack([left, top, left + width, top + height], axis=1)


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
            write_store(store, classes, scores * np.float32(sharpen))
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
    if options.maps:
        loaded = np.load(options.maps)
        classes, scores = loaded["classes"], loaded["scores"]
    else:
        classes, scores = make_maps()
    classes, scores = classes[:, : options.top_k], scores[:, : options.top_k]
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
