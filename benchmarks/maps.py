"""Label maps to measure with, and stores made of them, by the parts that annotate uses.

Maps come from a file with `classes` uint16 and `scores` float32 [N, K', H, W], or are made here of crops of the sample
photographs, by EfficientNet-Lite0 at 475 px.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from photos import make_photos

from labelstore.ids import pack_ids
from labelstore.pipelines.annotators.timm_models import imagenet_labels
from labelstore.pipelines.encoders.topk import best, quantise
from labelstore.pipelines.plan import shard_size
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.schema import AnnotatorRecord, Status, StoreInfo

CLASSES = 1000
_ROWS_A_CLASS = 50
Arrays = Mapping[str, NDArray[Any]]


def load_maps(file: Path | None, top_k: int = 5) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Classes and scores ``[N, top_k, H, W]`` of a file, or made here."""
    if file is None:
        classes, scores = make_maps()
    else:
        with np.load(file) as loaded:
            classes, scores = loaded["classes"], loaded["scores"]
    return classes[:, :top_k], scores[:, :top_k]


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


def pack(classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The arrays of encoding ``topk``."""
    gaps, ranges = quantise(torch.from_numpy(scores.astype(np.float64)))
    return {"classes": classes, "scores": gaps.numpy(), "score_range": ranges.numpy()}


def repeat(packed: Arrays, count: int) -> dict[str, NDArray[Any]]:
    """``count`` rows of as many maps as there are, over and over."""
    return {name: part[np.arange(count) % len(part)] for name, part in packed.items()}


def write_store(location: Path, packed: Arrays, ids: Sequence[str] | None = None) -> None:
    """A whole store, with ids as ImageNet's unless they are given."""
    info = create(location, packed, len(packed["classes"]), ids)
    writer = ShardWriter(str(location))
    for shard in range(info.num_shards):
        rows = slice(info.shard_rows(shard).start, info.shard_rows(shard).stop)
        made = {name: part[rows] for name, part in packed.items()}
        writer.write(shard, {**writer.empty_rows(shard), **made, **fixed_columns(rows)})


def create(location: Path, packed: Arrays, count: int, ids: Sequence[str] | None = None) -> StoreInfo:
    """An empty store for ``count`` rows of such maps."""
    names, wnids = imagenet_labels(timm, CLASSES) or (None, None)
    each = max(_ROWS_A_CLASS, -(-count // CLASSES))
    texts = pack_ids(imagenet_ids(count, each) if ids is None else ids)
    top_k, height, width = packed["classes"].shape[1:]
    info = StoreInfo(
        num_rows=count,
        num_classes=CLASSES,
        top_k=top_k,
        map_size=(height, width),
        shard_size=shard_size(count),
        id_bytes=texts.shape[1],
        annotator=AnnotatorRecord("efficientnet-lite0", "0" * 64, 475, (0.5,) * 3, (0.5,) * 3, "bicubic"),
        baseline="zero",
        class_names=names,
        class_ids=wnids,
    )
    create_store(str(location), info, texts, np.arange(count, dtype=np.int32) // each)
    return info


def fixed_columns(rows: slice) -> dict[str, NDArray[Any]]:
    """What a store keeps beside the maps. Checksums are random numbers: they must not compress better than real ones."""
    count = rows.stop - rows.start
    numbers = np.random.default_rng(rows.start).integers(0, 2**32, count, np.uint32)
    return {"status": np.full(count, Status.DONE, np.uint8), "image_crc32": numbers}


def imagenet_ids(count: int, a_class: int) -> list[str]:
    """Ids as those of ImageNet's training images, in their order: ``n01440764/n01440764_10026.JPEG``."""
    folders = [f"n{1440764 + 13577 * number:08}" for number in range(-(-count // a_class))]
    # 7919 and 30,000 have no common factor: no number comes twice in a folder
    return [
        f"{folder}/{name}"
        for number, folder in enumerate(folders)
        for name in sorted(
            f"{folder}_{row * 7919 % 30000}.JPEG" for row in range(number * a_class, min((number + 1) * a_class, count))
        )
    ]
