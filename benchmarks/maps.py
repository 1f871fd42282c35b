"""Label maps to measure with, and stores made of them, by the parts that annotate uses.

Maps come from a file with `classes` uint16 and `scores` float32 [N, K', H, W], or are made here of crops of the sample
photographs, by EfficientNet-Lite0 at 475 px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from labelstore.encodings import find_encoding
from labelstore.ids import pack_ids
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.timm_models import imagenet_labels
from labelstore.pipelines.choice import EncodingChoice, baseline, spectral_shape
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.encoders.topk import best, quantise
from labelstore.pipelines.plan import shard_size
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.records import AnnotatorRecord
from labelstore.schema import Status, StoreInfo

CLASSES = 1000
_ROWS_A_CLASS = 50
_INFO = StoreInfo(
    num_rows=0,
    num_classes=CLASSES,
    top_k=defaults.TOP_K,
    map_size=(1, 1),
    shard_size=1,
    id_bytes=1,
    annotator=AnnotatorRecord("efficientnet-lite0", "0" * 64, 475, (0.5,) * 3, (0.5,) * 3, "bicubic"),
)


@dataclass(frozen=True)
class Packed:
    """Maps as a store keeps them, and what such a store says of itself."""

    arrays: Mapping[str, NDArray[Any]]
    info: StoreInfo

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: slice | NDArray[np.int64]) -> Packed:
        return replace(self, arrays={name: part[rows] for name, part in self.arrays.items()})

    def repeat(self, count: int) -> Packed:
        """``count`` rows of as many maps as there are, over and over."""
        return self.take(np.arange(count) % len(self))


def load_maps(file: Path | None, top_k: int = 5) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Classes and scores ``[N, top_k, H, W]`` of a file, or made here."""
    if file is None:
        classes, scores = make_maps()
    else:
        with np.load(file) as loaded:
            classes, scores = loaded["classes"], loaded["scores"]
    return classes[:, :top_k], scores[:, :top_k]


def make_maps(count: int = 128) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    from dense_maps import make_dense

    top, chosen = best(torch.from_numpy(make_dense("efficientnet-lite0", 475, count)).float(), 10)
    return chosen.numpy().astype(np.uint16), top.numpy()


def pack(classes: NDArray[np.uint16], scores: NDArray[np.float32]) -> Packed:
    """Maps in encoding ``topk``."""
    gaps, ranges = quantise(torch.from_numpy(scores.astype(np.float64)))
    top_k, height, width = classes.shape[1:]
    info = replace(_INFO, top_k=top_k, map_size=(height, width), encoding="topk", baseline="zero")
    return Packed({"classes": classes, "scores": gaps.numpy(), "score_range": ranges.numpy()}, info)


def pack_dense(logits: NDArray[np.floating[Any]], **choices: Any) -> Packed:
    """Dense logits ``[N, C, H, W]`` in an encoding: as `annotate` would, with its options (``encoding``, ``patterns``, ...)."""
    top_k = choices.pop("top_k", defaults.TOP_K)
    choice = EncodingChoice(**choices)
    num_classes, height, width = logits.shape[1:]
    info = replace(
        _INFO,
        num_classes=num_classes,
        top_k=top_k,
        map_size=(height, width),
        encoding=choice.name,
        spectral=spectral_shape(choice, num_classes, (height, width)),
        baseline=baseline(choice),
        recipe=find_encoding(choice.name, "benchmark").recipe,
    )
    parts = [encode(torch.from_numpy(part.astype(np.float32)), info) for part in np.array_split(logits, -(-len(logits) // 8))]
    return Packed({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, info)


def write_store(location: Path, packed: Packed, ids: Sequence[str] | None = None) -> None:
    """A whole store, with ids as ImageNet's unless they are given."""
    info = create(location, packed, len(packed), ids)
    writer = ShardWriter(str(location))
    for shard in range(info.num_shards):
        rows = slice(info.shard_rows(shard).start, info.shard_rows(shard).stop)
        writer.write(shard, {**writer.empty_rows(shard), **packed.take(rows).arrays, **fixed_columns(rows)})


def create(location: Path, packed: Packed, count: int, ids: Sequence[str] | None = None) -> StoreInfo:
    """An empty store for ``count`` rows of such maps."""
    names, wnids = imagenet_labels(timm, packed.info.num_classes) or (None, None)
    each = max(_ROWS_A_CLASS, -(-count // CLASSES))
    texts = pack_ids(imagenet_ids(count, each) if ids is None else ids)
    info = replace(
        packed.info,
        num_rows=count,
        shard_size=shard_size(count),
        id_bytes=texts.shape[1],
        class_names=names,
        class_ids=wnids,
    )
    return create_store(str(location), info, texts, np.arange(count, dtype=np.int32) // each)


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
