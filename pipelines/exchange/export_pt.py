"""`export relabel`: one file a map, as the paper's authors publish theirs and as their training code reads them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import ImagesError
from labelstore.labelmap import LabelMap
from labelstore.pipelines.exchange.exporting import ChosenMaps, Exported, export_folder, require_distinct
from labelstore.pipelines.exchange.pt_folder import reference_name
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.schema import NO_CLASS

_WHY = "the reference's loader looks in a file of the last folder and the name up to the first dot"


def export_pt(store: str, dest: str, axes: str, selection: Selection, observer: Observer) -> Exported:
    """Write ``<folder>/<name>.pt``: a tensor ``[2, K, H, W]`` in float32, scores and class numbers.

    Parameters
    ----------
    axes
        ``yx``: rows of the image, then columns; ``xy``: the other way round, which is how the reference's own loader, which
        swaps the axes of crops, reads them right.

    A map that is short of classes is filled up with others (`_name_all`).

    Raises
    ------
    ImagesError
        Images whose maps the reference's loader would look for in one and the same file.
    LabelStoreError
        As `ChosenMaps` and `export_folder`.
    """
    maps = ChosenMaps(store, selection, observer)
    require_distinct(maps.ids(), _file_name, _WHY)
    folders, size = set[Path](), 0
    with export_folder(dest, maps, "relabel", axes=axes) as root:
        for part in maps.parts():
            tensors = torch.from_numpy(_tensors(part.maps, axes))
            for image_id, tensor in zip(part.ids, tensors, strict=True):
                file = root / _file_name(image_id)
                if file.parent not in folders:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    folders.add(file.parent)
                with file.open("wb") as stream:  # torch's own writer knows fewer names of files
                    torch.save(tensor.clone(), stream)
                size += file.stat().st_size
    return Exported(dest, len(maps.rows), maps.left_out, size)


def _file_name(image_id: str) -> str:
    """Where a map is written, below the folder: an id may begin with a slash, or have two in a row."""
    name = reference_name(image_id).lstrip("/")
    if "\0" in name or ".." in name.split("/"):
        raise ImagesError(f"image id {image_id!r}: expected one that names a file below the folder, got {name!r}")
    return name


def _tensors(maps: LabelMap, axes: str) -> NDArray[np.float32]:
    """Return ``[B, 2, K, H, W]``."""
    classes, scores = maps.classes.astype(np.float32), maps.scores.copy()
    for row in np.flatnonzero((maps.classes == NO_CLASS).any(axis=(1, 2, 3))).tolist():
        _name_all(classes[row], scores[row])
    stacked = np.stack([scores, classes], axis=1)
    found: NDArray[np.float32] = np.ascontiguousarray(stacked.swapaxes(3, 4) if axes == "xy" else stacked)
    return found


def _name_all(classes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Put classes that are not listed, with logit 0, where a map ``[K, H, W]`` has none: there is no 'no class' in these files,
    and 0 is what those classes count as anyway."""
    for y, x in np.argwhere((classes == NO_CLASS).any(axis=0)).tolist():
        listed = set(classes[:, y, x].tolist())
        free = (number for number in itertools.count() if number not in listed)
        for rank in np.flatnonzero(classes[:, y, x] == NO_CLASS).tolist():
            classes[rank, y, x], scores[rank, y, x] = next(free), 0.0
