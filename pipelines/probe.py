"""What must be known of an annotator before the first shard: its map, its classes, and whether a chosen size suits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import OptionError
from labelstore.pipelines.annotators import Annotator, AnnotatorInfo, AnnotatorSpec
from labelstore.pipelines.maps import LoadedImage, load_image, to_input
from labelstore.pipelines.shard import cached_annotator, keep_annotators

SAMPLE_IMAGES = 8
MUCH_FLATTER = 0.5


@dataclass(frozen=True)
class Flatness:
    """The median best probability of a few whole images: ``own``, from model(x) at the annotator's own size; ``chosen``,
    from the mean of the dense logits at the chosen size."""

    own: float
    chosen: float

    @property
    def much(self) -> bool:
        """Whether the chosen size makes the labels less than half as sure."""
        return self.chosen < MUCH_FLATTER * self.own


@dataclass(frozen=True)
class ProbeSpec:
    """What to load, and a few images to try it on."""

    annotator: AnnotatorSpec
    device: str
    top_k: int
    exif: str
    sample: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """What was found. ``flatness`` is None at the annotator's own size, and where no sample image could be read."""

    annotator: AnnotatorInfo
    flatness: Flatness | None


def probe_annotator(spec: ProbeSpec) -> Probe:
    """Load an annotator where the shards will run, and look at it.

    Raises
    ------
    AnnotatorError, MissingExtraError
        It cannot be loaded or made dense.
    OptionError
        ``top_k`` is above its number of classes.
    """
    annotator = cached_annotator(spec.annotator, spec.device)
    info = annotator.info
    if spec.top_k > info.num_classes:
        raise OptionError(f"--top-k {spec.top_k}: expected at most {info.num_classes}, the classes of {info.name}")
    if info.preprocessing.input_size == info.own_input_size:
        return Probe(info, None)
    own = cached_annotator(replace(spec.annotator, image_size=None), spec.device)
    images = [pair for pair in (_load_pair(Path(path), annotator, own, spec.exif) for path in spec.sample) if pair]
    if not images:
        return Probe(info, None)
    chosen = annotator.dense(to_input([pair[0] for pair in images], annotator)).mean(dim=(2, 3))
    whole = own.whole(to_input([pair[1] for pair in images], own))
    keep_annotators(annotator)
    return Probe(info, Flatness(_median_best(whole), _median_best(chosen)))


def _load_pair(path: Path, chosen: Annotator, own: Annotator, exif: str) -> tuple[LoadedImage, LoadedImage] | None:
    first, second = (load_image(path, annotator.info.preprocessing, exif) for annotator in (chosen, own))
    return None if first.error else (first, second)


def _median_best(logits: torch.Tensor) -> float:
    return float(torch.softmax(logits.float(), dim=1).amax(dim=1).median())


def spread(items: Sequence[str], count: int) -> tuple[str, ...]:
    """Return ``count`` of the items, evenly spread."""
    places: NDArray[np.int64] = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(np.int64)
    return tuple(items[place] for place in places.tolist())
