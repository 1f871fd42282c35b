"""Which class of the store is which class of a data set: no order is taken for granted.

Training, `labelstore.agreement` and the commands go by this module alone, so that all of them mean the same classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.class_columns import as_table, check_class_map
from labelstore.class_map_file import FILES, read_class_map
from labelstore.class_names import ClassNames
from labelstore.errors import ClassMapError, ClassMatchError
from labelstore.schema import StoreInfo

StoreClass = str | int
ClassMap = (
    str | Path | Sequence[int | Sequence[int]] | NDArray[np.integer] | Mapping[str, StoreClass | Sequence[StoreClass] | None]
)
Found = list[tuple[int, ...]]
NONE = -1
_WORDS = ("same", "by_id")
_SHOWN = 3
_LONGEST_NUMBER = 18


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
        None: the classes must be the store's. ``"by_id"``: find each of them among the store's ids, names, parts of names
        between commas, or numbers, whatever the order and however many the store has besides. ``"same"``: your word that the
        data set's targets are the store's classes. Or say which is which: a sequence ``[D]`` of the store's class numbers; a
        mapping from the data set's classes to the store's ids, names or numbers; or a file of such a mapping (.json, .csv).
        Several classes of the store for one of the data set's, as a list: their probabilities are added.

    Returns
    -------
    int64 ``[D]``, or ``[D, G]`` where one has several: -1 after its last.

    Raises
    ------
    ClassMatchError
        They are not the same, or the map does not fit; the message says what differs and what would do.
    OptionError
        The file cannot be read.
    """
    class_map = as_class_map(class_map)
    names, given = ClassNames(info), None if classes is None else tuple(classes)
    if class_map is None:
        _equal_or_refuse(info, names, given, where)
        return None
    if isinstance(class_map, str):
        if class_map == "same":
            _confirmed(info, names, given)
            return None
        return _by_id(info, names, given, where)
    if isinstance(class_map, Mapping):
        return _table(info, given, _from_mapping(names, info, given, class_map))
    return _table(info, given, class_map)


def find_classes(info: StoreInfo, names: ClassNames, classes: Sequence[str]) -> Found:
    """Return the store's classes that each of a data set's may be: by id or name; by number, where none is known by name."""
    found = names.find_all(classes)
    if any(found):
        return found
    numbers = [as_numbers([name]) or [NONE] for name in classes]
    return [(number,) if 0 <= number < info.num_classes else () for (number,) in numbers]


def as_numbers(classes: Sequence[str]) -> list[int] | None:
    """Return classes that are named by number, such as ``0``, ``1``, ``10``, ``11``, ``2``, as numbers; None for others."""
    if not classes or not all(name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER for name in classes):
        return None
    numbers = [int(name) for name in classes]
    return numbers if len(set(numbers)) == len(numbers) else None


def chosen_classes(names: ClassNames, info: StoreInfo, chosen: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the store's classes that a mapping names, for each of its keys; no class for None.

    Raises
    ------
    ClassMatchError
        The store has no such class, or several that are called so.
    """
    found, problems = {}, []
    for name, value in chosen.items():
        values = [] if value is None else value if isinstance(value, list | tuple) else [value]
        places = [_one(names, info, each, name) for each in values]
        problems += [each for each in places if isinstance(each, str)]
        found[name] = tuple(each for each in places if isinstance(each, int))
    if problems:
        count = f"{len(problems)} are " if len(problems) > 1 else ""
        raise ClassMatchError(f"class_map: {count}not among the store's class ids or names: {'; '.join(problems[:_SHOWN])}")
    return found


def _one(names: ClassNames, info: StoreInfo, value: Any, name: str) -> int | str:
    """One class's number, or what is wrong."""
    if isinstance(value, str):
        found = names.find(value)
        if len(found) == 1:
            return found[0]
        numbers = as_numbers([value])
        if found or numbers is None:
            return names.why_not(value)
        value = numbers[0]
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ClassMatchError(f"class_map[{name!r}]: expected an id, name or number of a class, or a list, got {value!r}")
    if not 0 <= value < info.num_classes:
        raise ClassMatchError(f"class_map[{name!r}]: expected a class of the store, 0..{info.num_classes - 1}, got {value}")
    return int(value)


def as_class_map(class_map: Any) -> Any:
    """Return a map as it is, or out of its file; raises as `match_classes`."""
    if isinstance(class_map, Path) or (isinstance(class_map, str) and class_map.lower().endswith(FILES)):
        return read_class_map(class_map)
    if isinstance(class_map, str) and class_map not in _WORDS:
        words = "', '".join(_WORDS)
        raise ClassMatchError(
            f"class_map: expected '{words}', a file ({', '.join(FILES)}), numbers or a mapping, got {class_map!r}"
        )
    return class_map


def _equal_or_refuse(info: StoreInfo, names: ClassNames, given: tuple[str, ...] | None, where: str) -> None:
    if given is None:
        raise ClassMatchError(
            f"{where}: the data set does not name its classes. If its targets are the store's {info.num_classes} classes, "
            "in their order, say class_map='same'; else say which is which: class_map=[the store's class of each target, ...]"
        )
    if given in (info.class_ids, info.class_names):
        return
    if not names:
        raise ClassMatchError(
            f"{where}: the store does not name its {info.num_classes} classes, the data set has {len(given)} ({_few(given)}). "
            + _advice_for_numbers(info, given)
        )
    found = find_classes(info, names, given)
    known = {"class ids": info.class_ids, "class names": info.class_names}
    what, theirs = max(((what, kept) for what, kept in known.items() if kept), key=lambda pair: len(set(given) & set(pair[1])))
    common = sum(len(places) == 1 for places in found)
    raise ClassMatchError(
        f"{where}: the data set's {len(given)} classes ({_few(given)}) are not the store's {len(theirs)} ({_few(theirs)}), "
        f"in their order; {common} of them are among the store's {what}. {_advice(found)}"
    )


def _advice(found: Found) -> str:
    if all(len(places) == 1 for places in found):
        return "To use those, say class_map='by_id'"
    return "Say which is which: class_map={data set's class: store's class, ...}"


def _advice_for_numbers(info: StoreInfo, given: tuple[str, ...]) -> str:
    numbers = as_numbers(given)
    if numbers is None:
        return "If they are the same, in the same order, say class_map='same'; else give the store's class of each"
    if max(numbers) >= info.num_classes:
        return "Give the store's class of each: class_map={data set's class: store's class, ...}"
    same = numbers == list(range(info.num_classes))
    return "If these are the store's class numbers, say class_map=" + ("'same'" if same else "'by_id'")


def _confirmed(info: StoreInfo, names: ClassNames, given: tuple[str, ...] | None) -> None:
    if given is None:
        return
    if len(given) != info.num_classes:
        raise ClassMatchError(
            f"class_map='same': expected the store's {info.num_classes} classes, the data set has {len(given)}"
        )
    found, numbers = find_classes(info, names, given), as_numbers(given)
    if all(len(places) == 1 for places in found):
        other, advice = [places[0] != place for place, places in enumerate(found)], _advice(found)
    elif numbers is not None:  # counted from 1, say
        other = [number != wanted for number, wanted in zip(numbers, sorted(numbers), strict=True)]
        advice = _advice([()])
    else:
        return
    if any(other):
        at = other.index(True)
        raise ClassMatchError(
            f"class_map='same': the data set's classes are in another order than the store's: its target {at} is {given[at]!r} "
            f"({_few(given, at + 1)}). {advice}"
        )


def _by_id(info: StoreInfo, names: ClassNames, given: tuple[str, ...] | None, where: str) -> NDArray[np.int64]:
    if given is None:
        raise ClassMatchError("class_map='by_id': the data set does not name its classes")
    found = find_classes(info, names, given)
    wrong = [name for name, places in zip(given, found, strict=True) if len(places) != 1]
    if not wrong:
        return _table(info, given, [list(places) for places in found])
    if as_numbers(given) is not None and not any(map(names.find, given)):
        raise ClassMatchError(
            f"class_map='by_id': {len(wrong)} of the data set's {len(given)} classes are no class numbers of the store, "
            f"0..{info.num_classes - 1}: {_few(wrong)}. {_advice([()])}"
        )
    if not names:
        raise ClassMatchError(f"class_map='by_id': {where} does not name its classes")
    raise ClassMatchError(
        f"class_map='by_id': {len(wrong)} of the data set's {len(given)} classes are not among the store's: "
        + ", ".join(map(names.why_not, wrong[:_SHOWN]))
        + (", ..." if len(wrong) > _SHOWN else "")
    )


def _from_mapping(
    names: ClassNames, info: StoreInfo, given: tuple[str, ...] | None, chosen: Mapping[str, Any]
) -> list[list[int]]:
    if given is None:
        raise ClassMatchError("class_map: a mapping needs a data set that names its classes; give numbers [D] instead")
    unmapped = [name for name in given if name not in chosen]
    if unmapped:
        raise ClassMatchError(f"class_map: {len(unmapped)} of the data set's classes are not in it: {_few(unmapped)}")
    found = chosen_classes(names, info, chosen)
    empty = [name for name in given if not found[name]]
    if empty:
        raise ClassMatchError(
            f"class_map: {len(empty)} of the data set's classes have no class of the store, so no label: {_few(empty)}; "
            "leave their images out of the data set"
        )
    return [list(found[name]) for name in given]


def _table(info: StoreInfo, given: tuple[str, ...] | None, numbers: Any) -> NDArray[np.int64]:
    """The store's classes as an array, checked: of each of the data set's at least one, and none twice."""
    try:
        columns = check_class_map(numbers, info.num_classes)
        table = as_table(numbers)
    except ClassMapError as error:
        raise ClassMatchError(str(error)) from error
    if given is not None and len(table) != len(given):
        raise ClassMatchError(
            f"class_map: expected {len(given)} numbers, one for each of the data set's classes, got {len(table)}"
        )
    used, counts = np.unique(columns.classes if columns is not None else table, return_counts=True)
    if (counts > 1).any():
        twice = used[int(np.argmax(counts > 1))]
        owners = [repr(name) for name, row in zip(given or range(len(table)), table, strict=True) if (row == twice).any()]
        raise ClassMatchError(
            "class_map: expected a class of the store for each of the data set's, got one of them twice: "
            f"{ClassNames(info).called(int(twice))}, for {' and '.join(owners[:_SHOWN])}"
        )
    return table[:, 0] if table.ndim == 2 and table.shape[1] == 1 else table


def _few(names: Sequence[str], most: int = _SHOWN) -> str:
    shown = min(most, 8)
    return f"{', '.join(map(repr, names[:shown]))}{', ...' if len(names) > shown else ''}"
