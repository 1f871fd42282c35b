"""Which class of the store is which class of a data set: nobody's order is taken for granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ClassMatchError
from labelstore.schema import StoreInfo

ClassMap = str | Sequence[int] | NDArray[np.integer] | Mapping[str, str | int]
_SHOWN = 3


def match_classes(
    info: StoreInfo, classes: Sequence[str] | None, class_map: ClassMap | None, where: str = "store"
) -> NDArray[np.int64] | None:
    """Return the store's class of each of a data set's classes, ``[D]``; None where they are the store's, in its order.

    Parameters
    ----------
    info
        The store's, with its ``class_ids`` (wnids for ImageNet) and ``class_names`` where the annotator knew them.
    classes
        The data set's, in the order of its targets (``ImageFolder.classes``); None if it does not say.
    class_map
        None: the classes must be the store's. ``"by_id"``: find each of them among the store's ids, or else names, whatever the
        order and however many the store has besides. ``"same"``: your word that the data set's targets are the store's
        classes. Or say which is which: a sequence ``[D]`` of the store's class numbers, or a mapping from the data set's
        classes to the store's ids, names or numbers.

    Raises
    ------
    ClassMatchError
        They are not the same, or the map does not fit; the message says what differs and what would do.
    """
    if class_map is None:
        _equal_or_refuse(info, classes, where)
        return None
    if isinstance(class_map, str):
        if class_map == "same":
            _confirmed(info, classes)
            return None
        if class_map == "by_id":
            return _by_id(info, classes, where)
        raise ClassMatchError(f"class_map: expected 'same', 'by_id', numbers or a mapping, got {class_map!r}")
    numbers = _from_mapping(info, classes, class_map) if isinstance(class_map, Mapping) else class_map
    return _check_numbers(info, classes, numbers)


def _known(info: StoreInfo) -> dict[str, tuple[str, ...]]:
    """The store's names for its classes that tell them apart."""
    pairs = {"class ids": info.class_ids, "class names": info.class_names}
    return {what: names for what, names in pairs.items() if names is not None and len(set(names)) == len(names)}


def _equal_or_refuse(info: StoreInfo, classes: Sequence[str] | None, where: str) -> None:
    if classes is None:
        raise ClassMatchError(
            f"{where}: the data set does not name its classes. If its targets are the store's {info.num_classes} classes, "
            "in their order, say class_map='same'; else say which is which: class_map=[the store's class of each target, ...]"
        )
    given, known = tuple(classes), _known(info)
    if given in known.values():
        return
    if not known:
        raise ClassMatchError(
            f"{where}: the store does not name its {info.num_classes} classes, the data set has {len(given)}. "
            "If they are the same, in the same order, say class_map='same'; else give the store's class of each"
        )
    what, names = max(known.items(), key=lambda item: len(set(given) & set(item[1])))
    common = len(set(given) & set(names))
    raise ClassMatchError(
        f"{where}: the data set's {len(given)} classes ({_few(given)}) are not the store's {len(names)} ({_few(names)}), "
        f"in their order; {common} of them are among the store's {what}. {_advice(given, names)}"
    )


def _advice(given: tuple[str, ...], names: tuple[str, ...]) -> str:
    if set(given) <= set(names):
        return "To use those, say class_map='by_id'"
    return "Say which is which: class_map={data set's class: store's class, ...}"


def _confirmed(info: StoreInfo, classes: Sequence[str] | None) -> None:
    if classes is not None and len(classes) != info.num_classes:
        raise ClassMatchError(
            f"class_map='same': expected the store's {info.num_classes} classes, the data set has {len(classes)}"
        )


def _by_id(info: StoreInfo, classes: Sequence[str] | None, where: str) -> NDArray[np.int64]:
    if classes is None:
        raise ClassMatchError("class_map='by_id': the data set does not name its classes")
    best: list[str] | None = None
    for names in _known(info).values():
        places = {name: place for place, name in enumerate(names)}
        unknown = [name for name in classes if name not in places]
        if not unknown:
            return np.array([places[name] for name in classes], np.int64)
        best = unknown if best is None or len(unknown) < len(best) else best
    if best is None:
        raise ClassMatchError(f"class_map='by_id': {where} does not name its classes")
    raise ClassMatchError(
        f"class_map='by_id': {len(best)} of the data set's {len(classes)} classes are not among the store's: {_few(best)}"
    )


def _from_mapping(info: StoreInfo, classes: Sequence[str] | None, chosen: Mapping[str, str | int]) -> list[int]:
    if classes is None:
        raise ClassMatchError("class_map: a mapping needs a data set that names its classes; give numbers [D] instead")
    unmapped = [name for name in classes if name not in chosen]
    if unmapped:
        raise ClassMatchError(f"class_map: {len(unmapped)} of the data set's classes are not in it: {_few(unmapped)}")
    places = {name: place for names in reversed(_known(info).values()) for place, name in enumerate(names)}
    unknown = [str(value) for value in chosen.values() if isinstance(value, str) and value not in places]
    if unknown:
        raise ClassMatchError(f"class_map: not among the store's class ids or names: {_few(unknown)}")
    values = (chosen[name] for name in classes)
    return [places[value] if isinstance(value, str) else value for value in values]


def _check_numbers(
    info: StoreInfo, classes: Sequence[str] | None, given: Sequence[int] | NDArray[np.integer]
) -> NDArray[np.int64]:
    numbers = np.asarray(given)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
        raise ClassMatchError(f"class_map: expected whole numbers [D], got {numbers.dtype} {list(numbers.shape)}")
    if classes is not None and len(numbers) != len(classes):
        raise ClassMatchError(
            f"class_map: expected {len(classes)} numbers, one for each of the data set's classes, got {len(numbers)}"
        )
    outside = (numbers < 0) | (numbers >= info.num_classes)
    if outside.any():
        place = int(np.argmax(outside))
        raise ClassMatchError(
            f"class_map[{place}]: expected a class of the store, 0..{info.num_classes - 1}, got {numbers[place]}"
        )
    if len(np.unique(numbers)) != len(numbers):
        raise ClassMatchError("class_map: expected a class of the store for each of the data set's, got one of them twice")
    return numbers.astype(np.int64)


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''}"
