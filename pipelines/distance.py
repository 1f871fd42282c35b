"""How far soft labels out of a store are from the annotator's own, over a few images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import Arrays, find_encoding
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.encoders import encode, is_usable
from labelstore.pipelines.encoders.training_crops import location_weights, training_crops
from labelstore.pipelines.loading import LoadSpec, load_image
from labelstore.pipelines.maps import to_pixels
from labelstore.pipelines.shard import cached_ensemble, torch_threads
from labelstore.pipelines.sources import Place
from labelstore.pixels import ReadRules
from labelstore.records import LabelDistance
from labelstore.schema import StoreInfo

_CROPS = slice(32, 64)
"""Not those by which an encoding has chosen its classes."""
_DIGITS = 6


@dataclass(frozen=True)
class DistanceSpec:
    """What to measure with: annotators, a store's settings, where a few images are, and torch's threads."""

    annotators: EnsembleSpec
    device: str
    info: StoreInfo
    sample: tuple[Place, ...]
    threads: int


def measure_distance(spec: DistanceSpec) -> LabelDistance | None:
    """Measure it over crops of the sample images; None if none of them can be read."""
    annotators = cached_ensemble(spec.annotators, spec.device)
    how = LoadSpec(annotators.inputs, ReadRules.of(spec.info), threads=1)
    loaded = (load_image(place, how) for place in spec.sample)
    images = [image for image in loaded if not image.error]
    with torch_threads(spec.threads):
        # One at a time: some annotators are large.
        dense = (annotators.logits(to_pixels([image], annotators)[0]) for image in images)
        kept = [(logits.cpu().numpy(), encode(logits, spec.info)) for logits in dense if is_usable(logits).all()]
    if not kept:
        return None
    found = np.concatenate([label_distances(logits, arrays, spec.info) for logits, arrays in kept], axis=1)
    l1, kl, agreement, best = found.mean(axis=1).round(_DIGITS).tolist()
    return LabelDistance(l1, kl, agreement, len(kept), best)


def label_distances(logits: NDArray[np.float32], arrays: Arrays, info: StoreInfo) -> NDArray[np.float64]:
    """Return L1 distance, KL divergence (annotator's from store's, in nats), whether the best class agrees, and its probability
    by the annotator, ``[4, n]``.

    Parameters
    ----------
    logits
        float32 ``[B, C, H, W]``.
    arrays
        What the store keeps of them.
    """
    boxes = training_crops(_CROPS.stop)[_CROPS]
    weights = location_weights(boxes, info.map_size)
    own = _log_softmax(np.einsum("bcl,nl->bnc", logits.reshape(*logits.shape[:2], -1), weights, optimize=True))
    own = own.reshape(-1, info.num_classes)
    rows = np.repeat(np.arange(len(logits)), len(boxes))
    kept = {name: part[rows] for name, part in arrays.items()}
    pooled = find_encoding(info.encoding, "distance").pool(kept, np.tile(boxes, (len(logits), 1)), info)
    stored = _log_softmax(pooled.astype(np.float64))
    probabilities = np.exp(own)
    l1 = np.abs(probabilities - np.exp(stored)).sum(axis=1)
    kl = np.maximum((probabilities * (own - stored)).sum(axis=1), 0)  # of equal labels it is 0, but for rounding
    return np.stack([l1, kl, own.argmax(axis=1) == stored.argmax(axis=1), probabilities.max(axis=1)])


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return total
