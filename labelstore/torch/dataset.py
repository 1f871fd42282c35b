"""A data set of images and the soft labels of their random crops, over a data set that you have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from labelstore.class_map import ClassMap, match_classes
from labelstore.encodings import find_encoding
from labelstore.errors import LabelStoreError, OptionError, PendingRowError, TransformError
from labelstore.pixels import ReadRules
from labelstore.reader import LabelMapReader
from labelstore.schema import Status
from labelstore.torch.follow import follow
from labelstore.torch.images import DatasetImages, Ids, check_crc32, check_loaders
from labelstore.torch.pooling import pool

YIELDS = ("labels", "maps")
MISSING = ("raise", "target")
_ABSENT = -1
_CERTAIN = 1e6
"""A logit that makes a label one-hot at any temperature that anybody would use."""


class SoftLabelDataset(Dataset[Any]):
    """Images, transformed, and the soft labels of the crops that the transform has made.

    Ids, classes and rows are looked up and checked once, here. A DataLoader that asks for a batch at a time (as PyTorch's does)
    reads and pools once a batch. Can be pickled (spawned workers) and forked.

    Parameters
    ----------
    dataset
        The images as they are, map-style: torchvision's ImageFolder without a transform, timm's ImageDataset, a Hugging Face
        Dataset of images, a Subset or a ConcatDataset of such; or any other of (image, target, ...) or of dicts, with ``ids``.
    reader
        The store. Its class order need not be the data set's: see ``class_map``.
    transform
        What you would give to the data set: anything that `labelstore.torch.follow` can follow, or what it has returned. It can
        be set later, as timm's ``create_loader`` does.
    ids
        The store's image id of each item, a sequence or a function of the index. By default the path below the folder's root.
    yields
        ``labels``: (image, soft label float32 ``[D]``). ``maps``: (image, map), to pool where the model is: a dict of
        what `LabelMapReader.read_packed` gives (encoding ``spectral``: 0.3 kB; ``topk``: 3.4 kB for 15x15) and ``box`` float64
        ``[4]``, which collates and goes as it is into `labelstore.torch.pool`.
    class_map
        Which class of the store is which of the data set: see `match_classes`. By default they must be the same.
    missing
        What becomes of images without a map (no row, failed, pending): ``raise``, here and now, or ``target``: their label is
        the one-hot target.
    check_images
        Whether each image's file must be the one that its map was made from (``image_crc32``), looked at when it is read.
    grid
        ``(gh, gw)``: token labels float32 ``[gh, gw, D]`` in place of one label. With ``yields="labels"``.
    temperature
        Of the softmax. With ``yields="labels"``.
    with_target
        Whether the data set's target follows as a third element.
    image_key, label_key
        Where the image and the label are, if the data set's items are dicts. By default the only image and the only label that
        a Hugging Face data set declares; else ``image`` and ``label``. Images of dicts are converted to RGB.

    Raises
    ------
    ImagesError, OptionError
        A data set or a setting that cannot be used.
    ClassMatchError
        Classes that are not the same, and nothing said about it.
    TransformError
        A transform through which the crop's box cannot be followed.
    UnknownIdError, FailedRowError, PendingRowError
        Images without a map, with ``missing="raise"``.
    """

    def __init__(
        self,
        dataset: Any,
        reader: LabelMapReader,
        transform: Callable[[Any], Any] | None = None,
        *,
        ids: Ids | None = None,
        yields: str = "labels",
        class_map: ClassMap | None = None,
        missing: str = "raise",
        check_images: bool = False,
        grid: tuple[int, int] | None = None,
        temperature: float = 1.0,
        with_target: bool = False,
        image_key: str | None = None,
        label_key: str | None = None,
    ) -> None:
        _check_reader(reader)
        for name, value, choices in (("yields", yields, YIELDS), ("missing", missing, MISSING)):
            if value not in choices:
                raise OptionError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")
        if yields == "maps" and (grid is not None or temperature != 1.0):
            raise OptionError("grid and temperature go with yields='labels'; for maps give them to labelstore.torch.pool")
        self.dataset, self.reader = dataset, reader
        self._transform = follow(transform) if transform is not None else None
        self._images = DatasetImages(dataset, ids, image_key, label_key)
        check_loaders(self._images.loaders, ReadRules.of(reader.info))
        self.class_map = match_classes(reader.info, self._images.classes, class_map, repr(reader))
        """int64 ``[D]`` or ``[D, G]``: the store's classes of each of the data set's; None where they are the same."""
        self._rows = find_rows(reader, self._images.ids, missing)
        self._yields, self._grid, self._temperature = yields, grid, temperature
        self._check_images, self._with_target = check_images, with_target
        if check_images and len(self):
            self._images.path(0)

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """The transform whose crops have soft labels. Setting it has the new one followed.

        Raises
        ------
        TransformError
            The box cannot be followed through the new one; or it is None, by which a caller says that it transforms the images
            by itself, unseen.
        """
        return self._transform.transform if self._transform is not None else None

    @transform.setter
    def transform(self, transform: Callable[[Any], Any] | None) -> None:
        if transform is None:
            raise TransformError(
                "transform: expected a transform to follow, got None; crops that are made elsewhere have no box, and no label"
            )
        self._transform = follow(transform)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The data set's classes, in the order of soft labels and targets; None where it does not name them."""
        return self._images.classes

    def __repr__(self) -> str:
        classes = self.reader.num_classes if self.class_map is None else len(self.class_map)
        step = "no transform" if self.transform is None else type(self.transform).__name__
        return f"SoftLabelDataset({type(self.dataset).__name__} of {len(self):,}, {self.reader!r}, {step}, {classes:,} classes)"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return a batch of items; what a DataLoader calls."""
        images, boxes, targets = [], [], []
        for index in indices:
            image, target = self._images.item(self.dataset[index])
            if self._check_images and self._rows[index] != _ABSENT:
                check_crc32(self.reader, int(self._rows[index]), self._images.ids[index], self._images.path(index))
            image, box = self._transform(image) if self._transform is not None else (image, _WHOLE)
            images.append(image)
            boxes.append(box)
            targets.append(target)
        labels = self._labels(self._rows[np.asarray(indices, np.int64)], torch.stack(boxes), targets)
        rest = ((target,) for target in targets) if self._with_target else ((),) * len(targets)
        return [(image, label, *more) for image, label, more in zip(images, labels, rest, strict=True)]

    def _labels(self, rows: NDArray[np.int64], boxes: Tensor, targets: Sequence[Any]) -> list[Any]:
        there = rows != _ABSENT
        kept = np.flatnonzero(there)
        if self._yields == "maps":
            packed = {name: torch.from_numpy(part) for name, part in self.reader.read_packed(rows[kept]).items()}
            maps: list[Any] = [None] * len(rows)
            for place, at in enumerate(kept.tolist()):
                maps[at] = {name: part[place] for name, part in packed.items()} | {"box": boxes[at]}
            for at in np.flatnonzero(~there).tolist():
                maps[at] = self._one_hot_map(self._target(targets[at])) | {"box": _WHOLE}
            return maps
        soft = self._pool(rows[kept], boxes[torch.from_numpy(kept)])
        if there.all():
            return list(soft)
        found = soft.new_zeros(len(rows), *soft.shape[1:])
        found[torch.from_numpy(there)] = soft
        for at in np.flatnonzero(~there).tolist():
            found[at, ..., self._target(targets[at])] = 1.0
        return list(found)

    def _pool(self, rows: NDArray[np.int64], boxes: Tensor) -> Tensor:
        if self._grid is None:
            return torch.from_numpy(self.reader.pool(rows, boxes.numpy(), self._temperature, self.class_map))
        maps = {name: torch.from_numpy(part) for name, part in self.reader.read_packed(rows).items()}
        columns = None if self.class_map is None else torch.from_numpy(self.class_map)
        return pool(
            maps,
            boxes,
            self.reader.num_classes,
            map_size=self.reader.map_size,
            grid=self._grid,
            temperature=self._temperature,
            class_map=columns,
        )

    def _target(self, target: Any) -> int:
        classes = self.reader.num_classes if self.class_map is None else len(self.class_map)
        if not 0 <= int(target) < classes:
            raise OptionError(f"missing='target': expected targets in 0..{classes - 1}, the data set gave {target}")
        return int(target)

    def _one_hot_map(self, target: int) -> dict[str, Tensor]:
        """A packed map that pools to the one-hot label of a target, whatever the box."""
        chosen = target if self.class_map is None else int(self.class_map[target].flat[0])
        info = self.reader.info
        packed = find_encoding(info.encoding, "store").one_class(chosen, _CERTAIN, info)
        return {name: torch.from_numpy(part) for name, part in packed.items()}


def _check_reader(reader: object) -> None:
    if not isinstance(reader, LabelMapReader):
        given = repr(str(reader)) if isinstance(reader, str | os.PathLike) else type(reader).__name__
        raise OptionError(f"reader: expected a LabelMapReader, got {given}: LabelMapReader(STORE) opens a store")


def find_rows(reader: LabelMapReader, ids: Sequence[str], missing: str) -> NDArray[np.int64]:
    """Return the rows of image ids; -1 for those without a map, if ``missing`` is ``target``.

    Raises
    ------
    UnknownIdError, FailedRowError, PendingRowError
        With ``missing="raise"``: how many, and why the first has none.
    """
    rows, known = reader.ids.find(ids)
    rows = np.where(known, rows, _ABSENT)
    rows[known] = np.where(reader.status(rows[known]) == Status.DONE, rows[known], _ABSENT)
    absent = np.flatnonzero(rows == _ABSENT)
    if not len(absent) or missing == "target":
        return rows
    advice = (
        f"{len(absent)} of {len(ids)} images have no label map; missing='target' gives them their one-hot target. The first: "
    )
    first = ids[absent[0]]
    try:
        reader.read([first])
    except LabelStoreError as error:
        raise type(error)(f"{advice}{error}") from error
    raise PendingRowError(f"{advice}{first!r} has been made just now")


_WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
