"""Which way round imported maps are: held against an annotator's own maps of the same photographs.

A square map does not tell whether its rows or its columns are the image's. Where it is transposed, the labels of crops are
those of other places: so crops' labels are compared with an annotator's, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import find_encoding
from labelstore.errors import MapsError, OptionError
from labelstore.pipelines import defaults
from labelstore.pipelines.annotators.ensemble import Ensemble
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.encoders import is_usable
from labelstore.pipelines.encoders.listed import encode_listed, find_problems
from labelstore.pipelines.encoders.training_crops import location_weights, training_crops
from labelstore.pipelines.exchange.pt_folder import PtFolder, file_names
from labelstore.pipelines.loading import LoadSpec, load_image
from labelstore.pipelines.maps import to_pixels
from labelstore.pipelines.new_store import MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.scores import listed_logits_of
from labelstore.pipelines.shard import cached_ensemble
from labelstore.pipelines.sources import ImagesSpec, Place, list_images
from labelstore.pixels import ReadRules
from labelstore.pooling import softmax
from labelstore.records import AXES

MOST_IMAGES = 64
_CROPS, _LEAST_SIGMAS = 64, 3.0


@dataclass(frozen=True)
class AxesCheck:
    """Photographs to look at, and the annotator to look with."""

    images: str
    annotators: EnsembleSpec
    device: str
    exif: str = defaults.EXIF


@dataclass(frozen=True)
class AxesScore:
    """Mean L1 distances (0 to 2) of crops' soft labels from the annotator's, with the maps taken as ``yx`` and as ``xy``.

    ``sigmas`` is the mean difference over images, in standard errors: positive where ``yx`` is nearer.
    """

    yx: float
    xy: float
    sigmas: float
    images: int


def find_axes(check: AxesCheck, folder: PtFolder, num_classes: int, observer: Observer) -> str:
    """Return the axes that agree with what an annotator sees.

    Parameters
    ----------
    folder
        The maps, taken as ``yx``.

    Raises
    ------
    OptionError
        The photographs do not tell: too few of them, or labels that are as near one way as the other; or the annotator has
        other classes.
    """
    observer.phase(f"loading {' + '.join(member.model for member in check.annotators.members)}")
    annotators = cached_ensemble(check.annotators, check.device)
    known = annotators.info.combined.num_classes
    if known != num_classes:
        raise OptionError(f"--check: expected an annotator of the maps' {num_classes} classes, got one of {known}; see --model")
    observer.phase("looking which way round the maps are")
    distances = np.array(list(_distances(check, annotators, folder, num_classes)))
    if len(distances) < 2:
        raise OptionError(
            f"--check {check.images}: expected photographs that have maps below {folder.root}, found {len(distances)}"
        )
    score = _score(distances)
    said = f"yx {score.yx:.3f}, xy {score.xy:.3f} ({score.images} images, {abs(score.sigmas):.1f} standard errors apart)"
    what = "mean distance of crops' labels from those of " + annotators.info.combined.name
    if abs(score.sigmas) < _LEAST_SIGMAS:
        raise OptionError(
            f"--check {check.images}: {what}: {said}: that does not tell. Say --axes yourself, see docs/formats.md"
        )
    axes = AXES[0] if score.sigmas > 0 else AXES[1]
    observer.note(f"axes: {axes}. {what}: {said}")
    return axes


def _score(distances: NDArray[np.float64]) -> AxesScore:
    """Sum up ``[n, 2]``, the distances of each image both ways."""
    differences = distances[:, 1] - distances[:, 0]
    error = max(float(differences.std(ddof=1)) / len(differences) ** 0.5, 1e-9)
    yx, xy = distances.mean(axis=0).tolist()
    return AxesScore(yx, xy, float(differences.mean()) / error, len(distances))


def _distances(check: AxesCheck, annotators: Ensemble, folder: PtFolder, num_classes: int) -> Iterator[tuple[float, float]]:
    how = LoadSpec(annotators.inputs, ReadRules(check.exif), threads=1)
    boxes = training_crops(_CROPS)
    for place, file in _pairs(check.images, folder):
        image = load_image(place, how)
        if image.error:
            continue
        logits = annotators.logits(to_pixels([image], annotators)[0])
        try:
            tensor = _with_logits(folder, file, num_classes)
        except MapsError:
            continue
        if not is_usable(logits).all() or find_problems(tensor[None, 1], tensor[None, 0], num_classes)[0]:
            continue
        dense = logits[0].cpu().numpy().reshape(num_classes, -1)
        own = softmax((location_weights(boxes, annotators.info.combined.map_size) @ dense.T).astype(np.float32))
        both = (np.abs(_labels(each, boxes, num_classes) - own).sum(axis=1).mean() for each in (tensor, tensor.swapaxes(2, 3)))
        yx, xy = map(float, both)
        yield yx, xy


def _with_logits(folder: PtFolder, file: str, num_classes: int) -> NDArray[Any]:
    tensor = folder.tensor(file)
    logits, problem = listed_logits_of(tensor[0], tensor[1], folder.scores, num_classes)
    if problem:
        raise MapsError(problem)
    return np.stack([logits, tensor[1]])


def _pairs(images: str, folder: PtFolder) -> Iterator[tuple[Place, str]]:
    """Yield some photographs, and the files of their maps."""
    listing = list_images(ImagesSpec((images,)))
    count = 0
    for row in np.random.default_rng(0).permutation(len(listing.ids)).tolist():  # the first ones may be of one class
        file = next((name for name in file_names(listing.ids[row]) if Path(folder.root, name).is_file()), None)
        if file is not None:
            yield listing.places[row], file
            count += 1
        if count == MOST_IMAGES:
            return


def _labels(tensor: NDArray[Any], boxes: NDArray[np.float64], num_classes: int) -> NDArray[np.float32]:
    """Return the soft labels ``[B, C]`` of crops of a map ``[2, K, H, W]``."""
    info = info_of(MapsRecord(num_classes, tensor.shape[2:], tensor.shape[1]), 1, 1)
    arrays = encode_listed(tensor[None, 1], tensor[None, 0], info)
    rows = np.zeros(len(boxes), np.intp)
    kept = {name: part[rows] for name, part in arrays.items()}
    return softmax(find_encoding(info.encoding, "axes").pool(kept, boxes, info))
