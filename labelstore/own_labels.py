"""The labels that images came with, as classes of their store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from labelstore.class_map import NONE, ClassMap, as_class_map, as_numbers, chosen_classes, find_classes, match_classes
from labelstore.class_names import ClassNames
from labelstore.errors import ClassMatchError
from labelstore.schema import StoreInfo

_SHOWN = 3
V = TypeVar("V", np.bool_, np.float32)


@dataclass(frozen=True)
class OwnLabels:
    """Which class of the store each label is.

    Attributes
    ----------
    classes
        int64 ``[T]``: the store's class of each label, the first one where it has several; -1 where it has none.
    merged
        int64 ``[C]``: the class that each of the store's counts as, where labels have several; None: all by themselves.
    """

    classes: NDArray[np.int64]
    merged: NDArray[np.int64] | None = None

    def of(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the store's class of labels ``[N]``, -1 where they have none."""
        known = (labels >= 0) & (labels < len(self.classes))
        return np.append(self.classes, NONE)[np.where(known, labels, NONE)]

    def merge(self, values: NDArray[V]) -> NDArray[V]:
        """Return probabilities ``[B, C]`` in which the first one of a label's classes has the sum of all of them, the others 0.
        Of bool: whether any of them is True."""
        if self.merged is None:
            return values
        found = values.copy()
        for place in np.flatnonzero(self.merged != np.arange(len(self.merged))).tolist():
            found[:, self.merged[place]] += values[:, place]
            found[:, place] = 0
        return found


def own_labels(info: StoreInfo, class_map: ClassMap | None = None) -> OwnLabels | None:
    """Return which class of the store each of the images' labels is; None if it is none of them.

    As `match_classes` finds them for training, but labels may remain that are no class of the store.

    Parameters
    ----------
    class_map
        None: labels in words are found as ``"by_id"`` does, labels in numbers are the store's classes. Else as for
        `match_classes`; labels that a mapping does not name are found as without it.

    Raises
    ------
    ClassMatchError, OptionError
        The map does not fit the store, or is for none of these labels; a file that cannot be read.
    """
    class_map, labels = as_class_map(class_map), info.target_names
    if isinstance(class_map, Mapping):
        found = _mapped(info, labels, class_map)
    elif class_map in (None, "by_id"):
        found = _by_id(info, labels)
    else:
        return _as_told(info, labels, class_map)
    return _own(info, found) if any(found) else None


def _by_id(info: StoreInfo, labels: tuple[str, ...] | None) -> list[tuple[int, ...]]:
    if labels is None:
        return [(number,) for number in range(info.num_classes)]
    return [places if len(places) == 1 else () for places in find_classes(info, ClassNames(info), labels)]


def _mapped(info: StoreInfo, labels: tuple[str, ...] | None, chosen: Mapping[str, object]) -> list[tuple[int, ...]]:
    names = ClassNames(info)
    mapped = chosen_classes(names, info, chosen)
    if labels is None:
        labels = _numbered(mapped, info.num_classes)
    named = [label for label in labels if label in mapped]
    if not named:
        given, theirs = (", ".join(map(repr, list(known)[:_SHOWN])) for known in (mapped, labels))
        raise ClassMatchError(f"class_map: none of its labels ({given}, ...) is one of the images' ({theirs}, ...)")
    return [mapped.get(label, others) for label, others in zip(labels, _by_id(info, labels), strict=True)]


def _numbered(mapped: Mapping[str, object], num_classes: int) -> tuple[str, ...]:
    """Labels in numbers as a mapping names them."""
    numbers = [as_numbers([label]) for label in mapped]
    wrong = [label for label, number in zip(mapped, numbers, strict=True) if number is None]
    if wrong:
        raise ClassMatchError(f"class_map: the images' labels are numbers, got {wrong[0]!r}")
    return tuple(map(str, range(max(num_classes, *(number[0] + 1 for number in numbers if number)))))


def _as_told(info: StoreInfo, labels: tuple[str, ...] | None, class_map: ClassMap) -> OwnLabels:
    """As training takes them, each one."""
    table = match_classes(info, labels, class_map)
    found = np.arange(info.num_classes) if table is None else table
    return _own(info, [tuple(place for place in row if place != NONE) for row in found.reshape(len(found), -1).tolist()])


def _own(info: StoreInfo, found: list[tuple[int, ...]]) -> OwnLabels:
    classes = np.array([places[0] if places else NONE for places in found], np.int64)
    if all(len(places) <= 1 for places in found):
        return OwnLabels(classes)
    merged = np.arange(info.num_classes)
    uses = Counter(place for places in found for place in places)
    for places in found:
        twice = next((place for place in places if len(places) > 1 and uses[place] > 1), None)
        if twice is not None:
            called = ClassNames(info).called(twice)
            raise ClassMatchError(f"class_map: expected a class of the store for one label, got one for several: {called}")
        if places:
            merged[list(places)] = places[0]
    return OwnLabels(classes, merged)
