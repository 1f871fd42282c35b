"""What must be known of an annotator before the first shard: its map, its classes, and whether a chosen size suits it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import OptionError
from labelstore.pipelines.annotators.ensemble import Ensemble
from labelstore.pipelines.annotators.scores import find_scores
from labelstore.pipelines.annotators.spec import EnsembleInfo, EnsembleSpec
from labelstore.pipelines.loading import LoadSpec, load_image
from labelstore.pipelines.maps import to_pixels
from labelstore.pipelines.shard import cached_ensemble, keep_annotators
from labelstore.pipelines.sources import Place
from labelstore.pixels import ReadRules

SAMPLE_IMAGES = 8
MUCH_FLATTER = 0.5


@dataclass(frozen=True)
class Flatness:
    """The median best probability of a few whole images, from the mean of their dense logits: ``own``, at the annotator's own
    size; ``chosen``, at the chosen one."""

    own: float
    chosen: float

    @property
    def much(self) -> bool:
        """Whether the chosen size makes the labels less than half as sure."""
        return self.chosen < MUCH_FLATTER * self.own


@dataclass(frozen=True)
class ProbeSpec:
    """What to load, and a few images to try it on. ``top_k`` is K where it was chosen."""

    annotators: EnsembleSpec
    device: str
    top_k: int | None
    rules: ReadRules
    sample: tuple[Place, ...]


@dataclass(frozen=True)
class Probe:
    """What was found. ``flatness`` is None at the annotator's own size, and where no sample image could be read.

    ``warnings`` name the annotators whose output may be probabilities, for all that can be seen.
    """

    annotators: EnsembleInfo
    flatness: Flatness | None
    warnings: tuple[str, ...] = ()


def probe_annotator(spec: ProbeSpec) -> Probe:
    """Load an annotator where the shards will run, and look at it.

    Raises
    ------
    AnnotatorError, MissingExtraError
        It cannot be loaded or made dense, or gives probabilities and nobody said so.
    OptionError
        ``top_k`` is above its number of classes.
    """
    annotators = cached_ensemble(spec.annotators, spec.device)
    info = annotators.info.combined
    if spec.top_k is not None and spec.top_k > info.num_classes:
        raise OptionError(f"--top-k {spec.top_k}: expected at most {info.num_classes}, the classes of {info.name}")
    warnings = _unclear(annotators, spec)
    if all(member.preprocessing.input_size == member.own_input_size for member in annotators.info.members):
        return Probe(annotators.info, None, warnings)
    members = tuple(replace(member, image_size=None) for member in spec.annotators.members)
    own = cached_ensemble(replace(spec.annotators, members=members), spec.device)
    logits = [_whole_logits(each, spec) for each in (annotators, own)]
    keep_annotators(annotators)
    chosen, usual = (None if found is None else _median_best(found) for found in logits)
    return Probe(annotators.info, None if chosen is None or usual is None else Flatness(usual, chosen), warnings)


def _unclear(annotators: Ensemble, spec: ProbeSpec) -> tuple[str, ...]:
    """Let images tell whether the outputs that may be probabilities are; return what to warn of."""
    doubtful = [number for number, member in enumerate(annotators.info.members) if member.unclear]
    pixels = _sample_pixels(annotators, spec) if doubtful else None
    found = []
    for number in doubtful:
        name = annotators.info.members[number].name
        logits = None if pixels is None else annotators.member_logits(number, pixels)
        if logits is None or find_scores(name, None, logits, "").unclear:
            found.append(
                f"{name}: all of its output lies in 0..1. If these are probabilities, labels will be next to uniform: begin a "
                "new store with --scores probabilities; if they are logits, --scores logits"
            )
    return tuple(found)


def _sample_pixels(annotators: Ensemble, spec: ProbeSpec) -> list[torch.Tensor] | None:
    """The sample's images; None if none of them can be read."""
    how = LoadSpec(annotators.inputs, spec.rules, threads=1)
    images = [image for image in (load_image(place, how) for place in spec.sample) if not image.error]
    return to_pixels(images, annotators)[0] if images else None


def _whole_logits(annotators: Ensemble, spec: ProbeSpec) -> torch.Tensor | None:
    """Logits of the sample's whole images; None if none of them can be read."""
    pixels = _sample_pixels(annotators, spec)
    return None if pixels is None else annotators.logits(pixels).mean(dim=(2, 3))


def _median_best(logits: torch.Tensor) -> float:
    return float(torch.softmax(logits.float(), dim=1).amax(dim=1).median())


def spread(rows: int, count: int) -> list[int]:
    """Return ``count`` of so many rows, evenly spread."""
    chosen: NDArray[np.int64] = np.linspace(0, rows - 1, min(count, rows)).round().astype(np.int64)
    found: list[int] = chosen.tolist()
    return found
