"""How far soft labels out of a store are from the annotator's own, over a few images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import Arrays, find_encoding
from labelstore.pipelines.annotators import AnnotatorSpec
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.encoders.training_crops import location_weights, training_crops
from labelstore.pipelines.maps import is_usable, load_image, to_input
from labelstore.pipelines.shard import cached_annotator, torch_threads
from labelstore.schema import LabelDistance, StoreInfo

_CROPS = slice(32, 64)
"""Not those by which an encoding has chosen its classes."""
_DIGITS = 6


@dataclass(frozen=True)
class DistanceSpec:
    """What to measure with: an annotator, a store's settings, a few images' paths, and torch's threads."""

    annotator: AnnotatorSpec
    device: str
    info: StoreInfo
    sample: tuple[str, ...]
    threads: int


def measure_distance(spec: DistanceSpec) -> LabelDistance | None:
    """Measure it over crops of the sample images; None if none of them can be read."""
    annotator = cached_annotator(spec.annotator, spec.device)
    loaded = (load_image(Path(path), annotator.info.preprocessing, spec.info.exif) for path in spec.sample)
    images = [image for image in loaded if not image.error]
    with torch_threads(spec.threads):
        dense = (annotator.dense(to_input([image], annotator)) for image in images)  # one at a time: some annotators are large
        kept = [(logits.cpu().numpy(), encode(logits, spec.info)) for logits in dense if is_usable(logits).all()]
    if not kept:
        return None
    found = np.concatenate([label_distances(logits, arrays, spec.info) for logits, arrays in kept], axis=1)
    l1, kl, agreement = found.mean(axis=1).round(_DIGITS).tolist()
    return LabelDistance(l1, kl, agreement, len(kept))


def label_distances(logits: NDArray[np.float32], arrays: Arrays, info: StoreInfo) -> NDArray[np.float64]:
    """Return L1 distance, KL divergence (annotator's from store's, in nats) and whether the best class agrees, ``[3, n]``.

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
    kl = (probabilities * (own - stored)).sum(axis=1)
    return np.stack([l1, kl, own.argmax(axis=1) == stored.argmax(axis=1)])


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return total
