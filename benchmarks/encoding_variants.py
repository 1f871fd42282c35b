"""What else the spectral encoding could be, one choice changed at a time, at what bytes and distance to the annotator.

Prototypes: nothing of them is in the package. The maps are those of benchmarks/frontier.py. Compared are ways to choose an
image's classes, what absent ones count as, the functions that maps are sums of, bits, and sizes that differ by image.

python benchmarks/encoding_variants.py [--dense NAME=FILE.npz[*SCALE] ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from crops import random_crops
from frontier import Dense, distances, log_softmax, sets_of
from torch import Tensor

from labelstore.boxes import check_boxes
from labelstore.encodings.spectral import cosines
from labelstore.pipelines.encoders.spectral import Factors, factor
from labelstore.pipelines.encoders.training_crops import location_weights
from labelstore.pipelines.encoders.view import view_of
from labelstore.records import SpectralShape

CROPS = 16
FIXED = 4 + 12
"""Checksum and scales of a record."""
Variant = Callable[["Maps"], tuple[float, Tensor]]


class Maps:
    """Dense logits, and their labels over random crops."""

    def __init__(self, name: str, logits: Dense) -> None:
        self.name = name
        self.logits = torch.from_numpy(logits).float()
        self.count, self.classes, self.height, self.width = self.logits.shape
        self.flat = self.logits.flatten(2).double()
        boxes = check_boxes(random_crops(self.count * CROPS, 1), self.count * CROPS)
        weights = location_weights(boxes, (self.height, self.width))
        self.weights = torch.from_numpy(weights).view(self.count, CROPS, -1)
        self.own = log_softmax((self.weights @ self.flat.transpose(1, 2)).flatten(0, 1).numpy())
        few = view_of(self.height, self.width, 4, 4, "cpu").crops
        self.pooled = (self.flat @ few.T).transpose(1, 2)  # [N, few, C]
        self.few = few

    def measure(self, variant: Variant) -> tuple[float, list[float]]:
        size, logits = variant(self)
        return size, distances(self.own, log_softmax(logits.flatten(0, 1).numpy())).mean(axis=1).tolist()

    def put(self, classes: Tensor, values: Tensor, rest: Tensor | None = None) -> Tensor:
        """Logits ``[N, crops, C]`` of named classes' ``[N, crops, M]``; ``rest`` ``[N, C]`` is what the others count as."""
        shape = (self.count, CROPS, self.classes)
        whole = torch.zeros(shape).double() if rest is None else rest[:, None].expand(shape).clone()
        return whole.scatter_(2, classes[:, None].expand(-1, CROPS, -1), values)


# How an image's classes are chosen


def by_probability(maps: Maps, count: int) -> Tensor:
    """Expected probability over crops: what the package does."""
    return torch.log_softmax(maps.pooled, 2).logsumexp(1).topk(count, 1).indices


def by_best_crop(maps: Maps, count: int) -> Tensor:
    """The largest probability in any crop."""
    return torch.log_softmax(maps.pooled, 2).amax(1).topk(count, 1).indices


def by_error(maps: Maps, count: int) -> Tensor:
    """Greedily, by the L1 distance that naming a class takes away: its mean distance from what absent classes count as."""
    chance = torch.softmax(maps.pooled, 2)
    chosen = by_probability(maps, count)
    for _ in range(3):
        left = 1 - chance.gather(2, chosen[:, None].expand(-1, chance.shape[1], -1)).sum(2, keepdim=True)
        rest = left / (maps.classes - count)
        chosen = (chance - rest).abs().mean(1).topk(count, 1).indices
    return chosen


# What absent classes count as


def base_mean(maps: Maps, classes: Tensor) -> Tensor:
    named = maps.flat.gather(1, classes[:, :, None].expand(-1, -1, maps.flat.shape[2])).sum(1)
    return (maps.flat.sum(1) - named) / (maps.classes - classes.shape[1])


def log_mass(maps: Maps, classes: Tensor) -> Tensor:
    """The logit ``[N, few]`` at which absent classes have their probability together."""
    hidden = maps.pooled.scatter(2, classes[:, None].expand(-1, maps.pooled.shape[1], -1), -torch.inf)
    return hidden.logsumexp(2) - math.log(maps.classes - classes.shape[1])


def base_mass(maps: Maps, classes: Tensor) -> Tensor:
    base = base_mean(maps, classes)
    return base + (log_mass(maps, classes) - base @ maps.few.T).mean(1, keepdim=True)


def base_mass_map(maps: Maps, classes: Tensor) -> Tensor:
    """A smooth map of its own, fitted to the mass over crops."""
    base = base_mean(maps, classes)
    waves = torch.from_numpy(_waves(maps.height, maps.width, 3)).T  # [9, L]
    found = torch.linalg.lstsq(
        (maps.few @ waves.T).expand(maps.count, -1, -1), log_mass(maps, classes)[..., None] - (base @ maps.few.T)[..., None]
    )
    return base + found.solution[..., 0] @ waves


# What the classes' maps are sums of


def _waves(height: int, width: int, frequencies: int):
    down, across = cosines(height, min(frequencies, height)), cosines(width, min(frequencies, width))
    return (down[:, None, :, None] * across[None, :, None, :]).reshape(height * width, -1)


def rounded(values: Tensor, bits: int) -> Tensor:
    """Whole numbers of one step an image, the step with the least squared error out of a few."""
    most, best, error = 2 ** (bits - 1) - 1, values, torch.full((len(values), 1, 1), torch.inf).double()
    top = values.abs().amax((1, 2), keepdim=True).clamp(min=1e-9)
    for part in (1.0, 0.8, 0.6, 0.45, 0.35, 0.25) if bits < 8 else (1.0,):
        step = top * part / most
        kept = (values / step).round().clamp(-most, most) * step
        wrong = (kept - values).square().sum((1, 2), keepdim=True)
        best, error = torch.where(wrong < error, kept, best), torch.minimum(wrong, error)
    return best


def separate(
    maps: Maps, classes: Tensor, base: Tensor, ladder: Sequence[tuple[int, int]], bits: int = 8
) -> tuple[float, Tensor]:
    """Every class with coefficients of its own: so many classes with so many of the lowest frequencies each."""
    side = min(maps.height, maps.width, 6)
    view = view_of(maps.height, maps.width, side, side, "cpu")
    order = sorted(range(1, side * side), key=lambda place: ((place // side) ** 2 + (place % side) ** 2, place))
    waves = torch.from_numpy(_waves(maps.height, maps.width, side))
    named = maps.flat.gather(1, classes[:, :, None].expand(-1, -1, maps.flat.shape[2])) - base[:, None]
    means, size, values, start = named @ view.mean, float(FIXED), [], 0
    for many, frequencies in ladder:
        part = slice(start, start + many)
        chosen = torch.tensor(order[: frequencies - 1], dtype=torch.long)
        fitted = _refit(view, chosen)
        coefficients = rounded(named[:, part] @ fitted.T, bits) if frequencies > 1 else named[:, part, :0]
        centred = maps.weights @ waves[:, chosen] - view.offset[chosen - 1]
        values.append(means[:, None, part] + centred @ coefficients.transpose(1, 2))
        size += many * (2 + 1 + (frequencies - 1) * bits / 8)
        start += many
    return size, maps.put(classes, torch.cat(values, 2))


def _refit(view, chosen: Tensor) -> Tensor:
    """The analysis of some of a view's frequencies alone."""
    spread = view.spread @ view.spread.T
    inner = spread[chosen - 1][:, chosen - 1]
    return torch.linalg.solve(inner, (spread @ view.analysis)[chosen - 1])


def learnt(maps: Maps, classes: Tensor, base: Tensor, count: int) -> tuple[float, Tensor]:
    """Functions learnt from half of the images, tried on the other: each class ``count`` coefficients."""
    view = view_of(maps.height, maps.width, *(min(side, 6) for side in (maps.height, maps.width)), "cpu")
    side = min(maps.height, maps.width, 6)
    named = maps.flat.gather(1, classes[:, :, None].expand(-1, -1, maps.flat.shape[2])) - base[:, None]
    means, varying = named @ view.mean, named @ view.analysis.T @ view.spread
    half, values = maps.count // 2, torch.empty(maps.count, CROPS, classes.shape[1]).double()
    waves = torch.from_numpy(_waves(maps.height, maps.width, side))[:, 1:]
    for train, test in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        one = varying[train].flatten(0, 1)
        functions = torch.linalg.eigh(one.T @ one).eigenvectors[:, -count:]
        weights = rounded(varying[test] @ functions, 8)
        centred = (maps.weights[test] @ waves - view.offset) @ (view.unspread.T @ functions)
        values[test] = means[test, None] + centred @ weights.transpose(1, 2)
    return FIXED + classes.shape[1] * (2 + 1 + count), maps.put(classes, values)


def shared(maps: Maps, shape: SpectralShape) -> tuple[float, Tensor]:
    """The package's: patterns of the image's own, that its classes share. Not rounded, but for the patterns."""
    factors = factor(maps.logits, shape, "absent_mass")
    return _size(shape), maps.put(factors.classes, _pooled(maps, factors, shape))


def _size(shape: SpectralShape) -> float:
    down, across = shape.frequencies
    return FIXED + 3 * shape.classes + shape.shaped * shape.patterns + shape.patterns * down * across


def _pooled(maps: Maps, factors: Factors, shape: SpectralShape) -> Tensor:
    waves = torch.from_numpy(_waves(maps.height, maps.width, shape.frequencies[0]))
    patterns = (maps.weights @ waves) @ (factors.patterns / 127).transpose(1, 2) - factors.offset[:, None]
    values = factors.means[:, None].expand(-1, CROPS, -1).clone()
    values[:, :, : shape.shaped] += patterns @ factors.weights.transpose(1, 2)
    return values


def by_mass(maps: Maps, sizes: Sequence[int], wanted: float) -> tuple[float, Tensor]:
    """As many classes as it takes for a probability, so that the mean number is ``wanted``."""
    chance = torch.softmax(maps.pooled, 2).mean(1)
    sums = chance.sort(1, descending=True).values.cumsum(1)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        numbers = (sums < middle).sum(1).clamp(min(sizes), max(sizes))
        low, high = (middle, high) if numbers.double().mean() < wanted else (low, middle)
    ready = {count: shared(maps, SpectralShape(count, -(-count // 2), 4, (4, 4))) for count in sizes}
    nearest = torch.tensor(sizes)[(numbers[:, None] - torch.tensor(sizes)).abs().argmin(1)].tolist()
    logits = torch.stack([ready[count][1][row] for row, count in enumerate(nearest)])
    return sum(ready[count][0] for count in nearest) / maps.count, logits


def with_tail(maps: Maps, shape: SpectralShape, bits: int) -> tuple[float, Tensor]:
    """A few bits for every class that is not named: which of 2^bits values it counts as."""
    factors = factor(maps.logits, shape, "absent_mass")
    base = base_mass(maps, factors.classes)
    above = maps.flat @ maps.few.mean(0) - (base @ maps.few.mean(0))[:, None]
    absent = torch.ones_like(above).scatter_(1, factors.classes, 0.0)
    levels = torch.stack(
        [above[row][absent[row] > 0].quantile(torch.linspace(0.1, 0.97, 2**bits).double()) for row in range(maps.count)]
    )
    weight = absent * above.clamp(max=8).exp().sqrt()
    for _ in range(12):
        near = torch.nn.functional.one_hot((above[:, :, None] - levels[:, None]).abs().argmin(2), 2**bits) * weight[..., None]
        levels = (near * above[..., None]).sum(1) / near.sum(1).clamp(min=1e-9)
    near = torch.nn.functional.one_hot((above[:, :, None] - levels[:, None]).abs().argmin(2), 2**bits) * absent[..., None]
    chance = (maps.pooled - (base @ maps.few.T)[..., None]).exp()  # [N, few, C]
    worth = ((chance @ near.double()) / near.sum(1)[:, None].clamp(min=1)).clamp(min=1e-9).log().mean(1)
    rest = (near * worth[:, None]).sum(2)
    size = _size(shape) + maps.classes * bits / 8 + 2**bits
    return size, maps.put(factors.classes, _pooled(maps, factors, shape), rest)


def _with(choose: Callable[[Maps, int], Tensor], base: Callable[[Maps, Tensor], Tensor]) -> Variant:
    def variant(maps: Maps) -> tuple[float, Tensor]:
        classes = choose(maps, 24)
        return separate(maps, classes, base(maps, classes), [(24, 16)])

    return variant


def _plain(make: Callable[[Maps, Tensor, Tensor], tuple[float, Tensor]], count: int) -> Variant:
    def variant(maps: Maps) -> tuple[float, Tensor]:
        classes = by_probability(maps, count)
        return make(maps, classes, base_mass(maps, classes))

    return variant


OURS = SpectralShape(40, 20, 4, (4, 4))
GROUPS: dict[str, dict[str, Variant]] = {
    "classes chosen by (24 classes, 16 frequencies each)": {
        "expected probability": _with(by_probability, base_mass),
        "probability in their best crop": _with(by_best_crop, base_mass),
        "L1 that naming them takes away": _with(by_error, base_mass),
    },
    "absent classes count as": {
        "their mean logit": _with(by_probability, base_mean),
        "what keeps their mass": _with(by_probability, base_mass),
        "what keeps it, a map of its own": _with(by_probability, base_mass_map),
    },
    "bits of a coefficient (16 frequencies each)": {
        f"{bits} bits, {count} classes": _plain(lambda m, c, b, n=count, w=bits: separate(m, c, b, [(n, 16)], w), count)
        for bits, count in ((8, 16), (6, 20), (4, 28), (3, 35))
    },
    "functions, at about 300 bytes": {
        "16 classes, 16 cosines each": _plain(lambda m, c, b: separate(m, c, b, [(16, 16)]), 16),
        "25 classes, 9 cosines each": _plain(lambda m, c, b: separate(m, c, b, [(25, 9)]), 25),
        "fewer for lesser: 8 x 16, 10 x 6, 22 x 1": _plain(lambda m, c, b: separate(m, c, b, [(8, 16), (10, 6), (22, 1)]), 40),
        "25 classes, 8 learnt functions each": _plain(lambda m, c, b: learnt(m, c, b, 8), 25),
        "32 classes of 4 patterns of the image's own": lambda maps: shared(maps, SpectralShape(32, 32, 4, (4, 4))),
        "40 classes, half of them of 4 patterns (ours)": lambda maps: shared(maps, OURS),
    },
    "functions, at about 900 bytes": {
        "fewer for lesser: 16 x 25, 24 x 9, 56 x 1": _plain(
            lambda m, c, b: separate(m, c, b, [(16, 25), (24, 9), (56, 1)]), 96
        ),
        "fewer for lesser: 8 x 25, 32 x 9, 72 x 1": _plain(lambda m, c, b: separate(m, c, b, [(8, 25), (32, 9), (72, 1)]), 112),
        "96 classes, half of them of 8 patterns (ours)": lambda maps: shared(maps, SpectralShape(96, 48, 8, (5, 5))),
    },
    "number of classes (4 patterns)": {
        "40 for every image": lambda maps: shared(maps, OURS),
        "by probability, 40 in the mean": lambda maps: by_mass(maps, (8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128), 40),
    },
    "bits for the absent classes": {
        "40 classes, none": lambda maps: shared(maps, OURS),
        "82 classes, none": lambda maps: shared(maps, replace(OURS, classes=82)),
        "40 classes, 1 bit": lambda maps: with_tail(maps, OURS, 1),
        "124 classes, none": lambda maps: shared(maps, replace(OURS, classes=124)),
        "40 classes, 2 bits": lambda maps: with_tail(maps, OURS, 2),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", action="append", default=[], metavar="NAME=FILE.npz[*SCALE]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    sets = [Maps(name, logits) for name, logits in sets_of(options.dense)]
    print(f"{'':50}{'bytes':>6}" + "".join(f" | {maps.name:^24}" for maps in sets))
    rows = []
    for group, variants in GROUPS.items():
        print(f"{group}:" + " " * (55 - len(group)) + " |   L1     KL    top-1    " * len(sets))
        for name, variant in variants.items():
            found = [maps.measure(variant) for maps in sets]
            figures = "".join(f" | {l1:7.3f}{kl:8.3f}{same:8.2f} " for _, (l1, kl, same) in found)
            print(f"  {name:48}{found[0][0]:6.0f}{figures}", flush=True)
            names = {"group": group, "variant": name}
            for maps, (size, (l1, kl, agreement)) in zip(sets, found, strict=True):
                rows.append(names | {"maps": maps.name, "bytes": size, "l1": l1, "kl": kl, "agreement": agreement})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
