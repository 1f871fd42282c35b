"""What map size, encoding and precision do to soft labels: for every choice its bytes, and two distances.

Over RandomResizedCrop's boxes of photographs, mean L1 distance (0 to 2) of the pooled soft label

- to the one pooled from all logits of the same map (K = C): what the encoding loses;
- to what the annotator says when it is run on the crop itself, at its own size: what label maps lose, and the encoding besides.

EfficientNet-Lite0 (224 px) and EfficientNet-Lite2 (260 px), at their own sizes and at others. The last rows are choices that
change the logits, held against the same map without them: the mirrored image averaged in, and mixed precision.

python benchmarks/annotate_quality.py [--images 96] [--crops 6] [--json FILE]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense_maps import HERE
from frontier import Dense, Truth, bytes_a_map, distances, log_softmax
from maps import pack_dense
from measuring import arguments
from numpy.typing import NDArray
from photos import make_photos
from PIL import Image

from labelstore.encodings import find_encoding
from labelstore.pipelines.annotators import AnnotatorSpec, EnsembleSpec, load_ensemble

OWN = {"efficientnet-lite0": 224, "dense_maps:efficientnet_lite2": 260}
SIZES = {"efficientnet-lite0": (160, 224, 320, 475), "dense_maps:efficientnet_lite2": (260, 380)}
ENCODINGS: dict[str, dict[str, Any]] = {
    **{f"topk, K={top_k}": {"encoding": "topk", "top_k": top_k} for top_k in (1, 5, 10, 20)},
    "spectral, M=16, R=4, k=4, b=0": {"classes_per_image": 16, "patterns": 4, "frequencies": 4, "tail_bits": 0},
    "spectral (default)": {},
    "spectral, M=96, R=8, k=5, b=2": {"classes_per_image": 96, "patterns": 8, "frequencies": 5, "tail_bits": 2},
}
_BATCH = 8
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One choice. ``to_dense`` None: this is what the others are held against."""

    model: str
    size: int
    map_size: tuple[int, int]
    choice: str
    bytes: float | None
    to_dense: float | None
    to_crop: float


def squashed(images: list[Image.Image], size: int) -> Iterator[Pixels]:
    for image in images:
        yield np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def logits_of(model: str, size: int, pixels: Iterator[Pixels], **how: Any) -> NDArray[np.float32]:
    """Dense logits ``[N, C, H, W]``."""
    annotators = load_ensemble(EnsembleSpec((AnnotatorSpec(model, size),), **how))
    every = list(pixels)
    parts = [torch.from_numpy(np.stack(every[start : start + _BATCH])) for start in range(0, len(every), _BATCH)]
    return np.concatenate([annotators.logits([part]).numpy() for part in parts])


def crop(image: Image.Image, box: NDArray[np.float64]) -> Image.Image:
    left, top, right, bottom = box * np.array([image.width, image.height] * 2)
    return image.crop((round(left), round(top), max(round(right), round(left) + 1), max(round(bottom), round(top) + 1)))


def l1(own: Dense, other: Dense) -> float:
    return float(distances(own, other)[0].mean())


def rows_of(model: str, images: list[Image.Image], crops: int) -> Iterator[Row]:
    """All choices with one annotator."""
    truths: dict[int, Truth] = {}
    on_crops: Dense | None = None
    for size in SIZES[model]:
        dense = logits_of(model, size, squashed(images, size))
        truth = truths[size] = Truth(f"{model} {size}", dense, crops)
        if on_crops is None:  # boxes are the same at every size
            parts = [crop(images[row], box) for row, box in zip(truth.rows, truth.boxes, strict=True)]
            on_crops = log_softmax(logits_of(model, OWN[model], squashed(parts, OWN[model])).mean((2, 3)).astype(np.float64))
        grid = (dense.shape[2], dense.shape[3])
        yield Row(model, size, grid, "all logits", 4.0 * dense[0].size, None, l1(on_crops, truth.log))
        for name, choice in ENCODINGS.items():
            packed = pack_dense(dense, **choice)
            pooled = find_encoding(packed.info.encoding, "quality").pool(
                packed.take(truth.rows).arrays, truth.boxes, packed.info
            )
            stored = log_softmax(pooled.astype(np.float64))
            yield Row(model, size, grid, name, bytes_a_map(packed), l1(truth.log, stored), l1(on_crops, stored))
    own = OWN[model]
    for name, how in {"--flip": {"flip": True}, "--precision bfloat16": {"precision": "bfloat16"}}.items():
        changed = Truth(name, logits_of(model, own, squashed(images, own), **how), crops)
        assert on_crops is not None
        found = l1(truths[own].log, changed.log), l1(on_crops, changed.log)
        yield Row(model, own, changed.logits.shape[2:], f"all logits, {name}", None, *found)


def show(rows: list[Row]) -> None:
    print("| annotator, input | map | kept | bytes a map | L1 to all logits | L1 to the annotator on the crop |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        name = row.model.rpartition(":")[2].replace("_", "-")
        size = "" if row.bytes is None else f"{row.bytes:,.0f}"
        own = "" if row.to_dense is None else f"{row.to_dense:.3f}"
        height, width = row.map_size
        print(f"| {name}, {row.size} px | {height}x{width} | {row.choice} | {size} | {own} | {row.to_crop:.3f} |")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--crops", type=int, default=6, help="of each image")
    parser.add_argument("--models", nargs="+", choices=list(OWN), default=list(OWN))
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as scratch:
        paths = sorted(make_photos(Path(scratch), options.images).iterdir())
        images = [Image.open(path).convert("RGB") for path in paths]
    rows = [row for model in options.models for row in rows_of(model, images, options.crops)]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
