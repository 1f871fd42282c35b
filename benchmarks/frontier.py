"""Encodings held against each other: bytes a map, and how far soft labels are from those pooled from all logits.

Over random crops (RandomResizedCrop's) of maps with all their logits: those of files (--dense NAME=FILE.npz, `logits`
[N, C, H, W], as dense_maps.py keeps them; NAME=FILE.npz*2.5 multiplies the logits, like a sharper annotator), or by default
those of EfficientNet-Lite0 (475 px), as they are and times 2.5, and of EfficientNet-Lite2 (260 px), made here. Bytes are those
of the map arrays' files, shard index and checksums included; the reference is one torch file a map (fp32 top 5, absent classes
at logit 0).

python benchmarks/frontier.py [--dense NAME=FILE.npz[*SCALE] ...] [--crops 24] [--json FILE] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from crops import random_crops
from dense_maps import load_dense, make_dense
from maps import Packed, pack_dense
from numpy.typing import NDArray
from torch import from_numpy, save, zeros

from labelstore.boxes import check_boxes
from labelstore.encodings import find_encoding
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.encoders.training_crops import location_weights
from labelstore.pipelines.files import encode_file
from labelstore.records import SpectralShape

SMALL = 0.25
"""Crops of at most this area are small: 8 to 25 %."""
TOP_K = (1, 2, 3, 5, 10, 20)
SPECTRAL = (
    # M, R, k, tail bits
    (12, 2, 3, 1),
    (16, 4, 4, 1),
    (24, 4, 4, 1),
    (32, 4, 4, 1),
    (40, 5, 5, 1),
    (40, 5, 5, 2),
    (48, 6, 5, 2),
    (64, 8, 5, 2),
    (96, 8, 5, 2),
    (128, 8, 6, 2),
    (192, 10, 6, 2),
    (16, 2, 3, 0),
    (16, 4, 4, 0),
    (24, 4, 4, 0),
    (40, 4, 4, 0),
    (48, 6, 5, 0),
    (64, 6, 5, 0),
    (96, 8, 5, 0),
    (192, 10, 6, 0),
)
SEPARATE = ((16, 4), (32, 4), (32, 6), (64, 6))
"""M, k: as many patterns as there are frequencies, which is every class with coefficients of its own."""
FAMILIES = {
    "reference": ("X", "#444444", "the reference's files"),
    "topk": ("s--", "#888888", "top k a location (the paper's)"),
    "separate": ("^:", "#d95f02", "M classes, k x k coefficients each"),
    "spectral": ("o:", "#8ab8dc", "spectral, no tail bits"),
    "spectral+": ("o-", "#1f77b4", "spectral: M classes, R shared patterns, tail bits"),
}
Dense = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Point:
    """One setting on one set of maps. Means over crops; ``small`` ones are of crops of at most a quarter of the image."""

    maps: str
    family: str
    setting: str
    bytes: float
    l1: float
    kl: float
    agreement: float
    small_l1: float
    small_kl: float
    small_agreement: float
    large_l1: float
    large_kl: float
    large_agreement: float


class Truth:
    """Soft labels pooled from all logits."""

    def __init__(self, name: str, logits: Dense, crops: int) -> None:
        self.name, self.logits = name, logits
        self.rows = np.repeat(np.arange(len(logits)), crops)
        self.boxes = check_boxes(random_crops(len(self.rows), 1), len(self.rows))
        self.small = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1]) <= SMALL
        weights = location_weights(self.boxes, logits.shape[2:]).reshape(len(logits), crops, -1).astype(np.float32)
        flat = logits.reshape(*logits.shape[:2], -1)
        pooled = [one @ mine.astype(np.float32).T for one, mine in zip(weights, flat, strict=True)]
        self.log = log_softmax(np.concatenate(pooled))

    def point(self, family: str, setting: str, packed: Packed, size: float) -> Point:
        info = packed.info
        encoding = find_encoding(info.encoding, "frontier")
        found = []
        for start in range(0, len(self.rows), 512):
            part = slice(start, start + 512)
            pooled = encoding.pool(packed.take(self.rows[part]).arrays, self.boxes[part], info)
            found.append(distances(self.log[part], log_softmax(pooled)))
        each = np.concatenate(found, axis=1)
        figures = [each.mean(axis=1), each[:, self.small].mean(axis=1), each[:, ~self.small].mean(axis=1)]
        return Point(self.name, family, setting, size, *np.concatenate(figures).tolist())


def distances(own: Dense, stored: Dense) -> Dense:
    probabilities = np.exp(own)
    l1 = np.abs(probabilities - np.exp(stored)).sum(axis=1)
    kl = (probabilities * (own - stored)).sum(axis=1)
    return np.stack([l1, kl, own.argmax(axis=1) == stored.argmax(axis=1)])


def log_softmax(logits: Dense) -> Dense:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Dense = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def bytes_a_map(packed: Packed) -> float:
    """Of the arrays that keep the maps, as the files of one shard."""
    specs = find_encoding(packed.info.encoding, "frontier").arrays(packed.info)
    return sum(len(encode_file(spec, packed.arrays[spec.name], len(packed))) for spec in specs) / len(packed)


def torch_file_bytes(map_size: tuple[int, ...]) -> float:
    """Of one map as the reference keeps it: a torch file of float32 ``[2, 5, H, W]``."""
    file = io.BytesIO()
    save(zeros(2, 5, *map_size), file)
    return len(file.getvalue())


def measure(truth: Truth) -> list[Point]:
    most = truth.logits.shape[1]
    points = []

    def add(family: str, setting: str, **choices: Any) -> None:
        packed = pack_dense(truth.logits, **choices)
        points.append(truth.point(family, setting, packed, bytes_a_map(packed)))

    zero = pack_dense(truth.logits, encoding="topk", baseline="zero")  # 8 bits for its 32: no difference to these figures
    points.append(truth.point("reference", "top 5", zero, torch_file_bytes(truth.logits.shape[2:])))
    for top_k in TOP_K:
        add("topk", f"top {top_k}", encoding="topk", top_k=top_k)
    for classes, patterns, frequencies, bits in SPECTRAL:
        if classes <= most and frequencies <= min(truth.logits.shape[2:]):
            chosen = {"classes_per_image": classes, "patterns": patterns, "frequencies": frequencies, "tail_bits": bits}
            setting = f"M={classes}, R={patterns}, k={frequencies}, b={bits}"
            add("spectral+" if bits else "spectral", setting, encoding="spectral", **chosen)
    for classes, frequencies in SEPARATE:
        if classes <= most and frequencies <= min(truth.logits.shape[2:]):
            packed = separate(truth.logits, classes, frequencies)
            size = classes * (2 + frequencies**2) + 4.0  # classes, coefficients and one step, as a plain array would keep them
            points.append(truth.point("separate", f"M={classes}, k={frequencies}", packed, size))
    return points


def separate(logits: Dense, classes: int, frequencies: int) -> Packed:
    """As many patterns as there are frequencies, and every class varying."""
    few = pack_dense(logits[:1], encoding="spectral", classes_per_image=classes, patterns=0, frequencies=1, tail_bits=0)
    shape = SpectralShape(classes, classes, frequencies**2 - 1, (frequencies, frequencies))
    info = replace(few.info, spectral=shape)
    parts = [encode(from_numpy(part.astype(np.float32)), info) for part in np.array_split(logits, -(-len(logits) // 8))]
    return Packed({"spectra": np.concatenate([part["spectra"] for part in parts])}, info)


def sets_of(given: Sequence[str]) -> list[tuple[str, Dense]]:
    """Names and logits."""
    found = []
    for text in given:
        name, _, rest = text.partition("=")
        file, _, scale = rest.partition("*")
        found.append((name, load_dense(Path(file)).astype(np.float32) * np.float32(scale or 1)))
    if not found:
        lite0 = make_dense("efficientnet-lite0", 475, 96).astype(np.float32)
        lite2 = make_dense("dense_maps:efficientnet_lite2", None, 160).astype(np.float32)
        sharp = lite0 * np.float32(2.5)
        found = [("Lite0, 475 px", lite0), ("Lite0, 475 px, logits x 2.5", sharp), ("Lite2, 260 px", lite2)]
    return found


def show(points: Sequence[Point]) -> None:
    for name in dict.fromkeys(point.maps for point in points):
        print(f"\n{name}")
        print(f"  {'':32}{'bytes':>7} | {'L1':>6}{'KL':>7}{'top-1':>7} | {'small crops':^20} | {'large crops':^20}")
        for point in (each for each in points if each.maps == name):
            figures = list(asdict(point).values())[4:]
            columns = [f"{l1:6.3f}{kl:7.3f}{top:7.2f}" for l1, kl, top in zip(*[iter(figures)] * 3, strict=True)]
            print(f"  {point.family + ' ' + point.setting:32}{point.bytes:7,.0f} | {' | '.join(columns)}")


def plot(points: Sequence[Point], file: Path) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    names = list(dict.fromkeys(point.maps for point in points))
    figure, axes = pyplot.subplots(2, len(names), figsize=(3.6 * len(names), 5.6), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(names):
        for line, measure_ in enumerate(("l1", "kl")):
            axis = axes[line, column]
            for family, (style, colour, label) in FAMILIES.items():
                mine = sorted((p for p in points if (p.maps, p.family) == (name, family)), key=lambda p: p.bytes)
                values = [getattr(point, measure_) for point in mine]
                axis.plot([point.bytes for point in mine], values, style, color=colour, ms=4, lw=1.3, label=label)
            axis.set_xscale("log")
            axis.set_xticks([100, 300, 1000, 3000, 10000], ["100", "300", "1,000", "3,000", "10,000"])
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.25)
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("bytes a map")
    axes[0, 0].set_ylabel("L1 to the annotator's labels")
    axes[1, 0].set_ylabel("KL, nats")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", action="append", default=[], metavar="NAME=FILE.npz[*SCALE]")
    parser.add_argument("--crops", type=int, default=24, help="an image")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    points = [point for name, logits in sets_of(options.dense) for point in measure(Truth(name, logits, options.crops))]
    show(points)
    if options.json:
        options.json.write_text(json.dumps([asdict(point) for point in points], indent=2))
    if options.plot:
        plot(points, options.plot)


if __name__ == "__main__":
    main()
