"""What a map-style data set says of its items, by the library that it comes from: ids, files, classes, where the image is.

torchvision's folders, `Subset` and `ConcatDataset` of anything, timm's `ImageDataset`, Hugging Face's `Dataset`. Each is told
by its attributes: none of these libraries but torch is imported.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets.folder import default_loader

from labelstore.errors import ImagesError


@dataclass(frozen=True)
class Items:
    """Takes what a data set gives for an index apart: image and target, -1 where there is none. Can be pickled."""

    of: str
    image_key: str | None
    label_key: str | None

    def __call__(self, row: Any) -> tuple[Any, Any]:
        """Return image and target of an item: a tuple, or a dict, whose image is converted to RGB."""
        if isinstance(row, tuple | list) and len(row) >= 2:
            return row[0], row[1]
        if not isinstance(row, dict):
            raise ImagesError(f"{self.of}: expected items (image, target, ...) or dicts, got {type(row).__name__}")
        image_key, label_key = self.image_key or "image", self.label_key or "label"
        if image_key not in row or (self.label_key is not None and label_key not in row):
            missing = "image_key" if image_key not in row else "label_key"
            raise ImagesError(
                f"{self.of}: {missing}: its items are dicts with the keys {', '.join(map(repr, row))}; "
                f"{missing}=... says which of them it is"
            )
        image = row[image_key]
        return image.convert("RGB") if getattr(image, "mode", "RGB") != "RGB" else image, row.get(label_key, -1)


@dataclass(frozen=True)
class Known:
    """What is known of a data set; None of each that it does not say.

    Attributes
    ----------
    ids
        The image id of each item.
    files
        The file of each item.
    classes
        Names or ids of the classes, in the order of the targets.
    loaders
        What reads the images, of each of the data sets that are put together.
    item
        Takes what the data set gives for an index apart: image and target.
    """

    ids: Sequence[str] | None
    files: Sequence[str] | None
    classes: tuple[str, ...] | None
    loaders: tuple[Any, ...]
    item: Items


def look_at(dataset: Any, image_key: str | None = None, label_key: str | None = None) -> Known:
    """Say what is known of a data set.

    Parameters
    ----------
    image_key, label_key
        Of data sets whose items are dicts: where the image and the label are. By default the only image and the only label
        that a Hugging Face data set declares; else ``image`` and ``label``.

    Raises
    ------
    ImagesError
        It transforms its images by itself; or the keys are none of its own.
    """
    if isinstance(dataset, Subset):
        return _picked(look_at(dataset.dataset, image_key, label_key), [int(index) for index in dataset.indices])
    if isinstance(dataset, ConcatDataset):
        return _joined([look_at(part, image_key, label_key) for part in dataset.datasets])
    _refuse_transforms(dataset)
    if hasattr(dataset, "column_names") and hasattr(dataset, "features"):
        return _hugging_face(dataset, image_key, label_key)
    item = Items(type(dataset).__name__, image_key, label_key)
    if hasattr(dataset, "filenames") and hasattr(dataset, "reader"):
        return _timm(dataset, item)
    if hasattr(dataset, "samples") and hasattr(dataset, "root"):
        return _folder(dataset, item)
    return Known(None, None, _class_names(dataset), (getattr(dataset, "loader", None),), item)


def _refuse_transforms(dataset: Any) -> None:
    for name in ("transform", "transforms"):
        if getattr(dataset, name, None) is not None:
            raise ImagesError(
                f"{type(dataset).__name__} has a {name} of its own, so that the box of its crops is lost: make it without, "
                "and hand the transform to SoftLabelDataset"
            )


def _folder(dataset: Any, item: Items) -> Known:
    """torchvision's ImageFolder, DatasetFolder and ImageNet, whose samples lie in the folder of a split."""
    root = getattr(dataset, "split_folder", dataset.root)
    files = [str(path) for path, *_ in dataset.samples]
    ids = [os.path.relpath(file, root).replace(os.sep, "/") for file in files]
    return Known(ids, files, _class_names(dataset), (getattr(dataset, "loader", None),), item)


def _timm(dataset: Any, item: Items) -> Known:
    """timm's ImageDataset: it numbers folders in natural order (1, 2, 10), and loads as torchvision's default loader does."""
    places = getattr(dataset.reader, "class_to_idx", None)
    classes = tuple(sorted(places, key=places.__getitem__)) if places else None
    if places and sorted(places.values()) != list(range(len(places))):
        classes = None  # a class map of the user's own: targets with gaps have no order of names
    ids = [name.replace(os.sep, "/") for name in dataset.filenames()]
    return Known(ids, dataset.filenames(absolute=True), classes, (default_loader,), item)


def _hugging_face(dataset: Any, image_key: str | None, label_key: str | None) -> Known:
    """A Dataset of the datasets library: the ids are the paths that are stored beside the images, as `annotate` takes them."""
    features = dict(dataset.features)
    image_key = _declared(features, "Image", image_key, "image_key")
    label_key = _declared(features, "ClassLabel", label_key, "label_key")
    if image_key is None:
        raise ImagesError(f"image_key: no column of images is declared among {', '.join(features)}; name the one that has them")
    names = getattr(features.get(label_key), "names", None) if label_key is not None else None
    ids = None
    if type(features[image_key]).__name__ == "Image" and len(dataset):
        column = dataset.with_format("arrow")[:][image_key]  # paths alone: the images' bytes stay where they are
        paths = [path for chunk in column.chunks for path in chunk.field("path").to_pylist()]
        ids = paths if all(paths) and len(set(paths)) == len(paths) else None
    item = Items(type(dataset).__name__, image_key, label_key)
    return Known(ids, None, None if names is None else tuple(map(str, names)), (None,), item)


def _declared(features: dict[str, Any], kind: str, chosen: str | None, option: str) -> str | None:
    """Return a column of a kind: the chosen one, or the only one; None if there is none."""
    if chosen is not None:
        if chosen not in features:
            raise ImagesError(f"{option}: expected one of the columns {', '.join(features)}, got {chosen!r}")
        return chosen
    found = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) > 1:
        raise ImagesError(f"{option}: the data set has several columns of kind {kind} ({', '.join(found)}); choose one of them")
    return found[0] if found else None


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """Class ids where there are any: torchvision's ImageNet has names as ``classes``, ids as ``wnids``."""
    classes = getattr(dataset, "wnids", getattr(dataset, "classes", None))
    return None if classes is None else tuple(map(str, classes))


def _picked(known: Known, places: list[int]) -> Known:
    ids = None if known.ids is None else [known.ids[place] for place in places]
    files = None if known.files is None else [known.files[place] for place in places]
    return Known(ids, files, known.classes, known.loaders, known.item)


def _joined(parts: list[Known]) -> Known:
    """Put data sets together that are read one after the other, with the same classes and items of the same form."""
    named = [part.classes for part in parts if part.classes is not None]
    if any(classes != named[0] for classes in named):
        raise ImagesError(
            f"ConcatDataset: expected parts with the same classes in the same order, got {_few(named[0])} "
            f"and {_few(next(classes for classes in named if classes != named[0]))}: the same target is not the same class"
        )
    ids = _chained([part.ids for part in parts])
    if ids is not None and len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ImagesError(f"ConcatDataset: {twice!r} is the id of items of two parts: give `ids`, which tell them apart")
    loaders = tuple(loader for part in parts for loader in part.loaders)
    classes = named[0] if len(named) == len(parts) else None
    return Known(ids, _chained([part.files for part in parts]), classes, loaders, parts[0].item)


def _chained(lists: list[Sequence[str] | None]) -> list[str] | None:
    if any(one is None for one in lists):
        return None
    return [entry for one in lists for entry in one or ()]


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(map(repr, names[:3]))}{', ...' if len(names) > 3 else ''})"
