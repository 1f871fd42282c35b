"""Which classes images show: out of a file such as ImageNet's ReaL labels, or out of a store's maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, OptionError
from labelstore.evaluation.class_numbers import ClassNumbers
from labelstore.evaluation.scores import score_batches
from labelstore.reader import LabelMapReader
from labelstore.schema import Status


@dataclass(frozen=True)
class MultiLabels:
    """The classes that images show. Immutable.

    Parameters
    ----------
    classes
        By row of the store: class numbers, at least one.
    empty
        Images of which it is said that no class fits them; they are left out, as ReaL does.
    unknown
        Images that are no rows of the store.
    """

    classes: Mapping[int, tuple[int, ...]]
    empty: int = 0
    unknown: int = 0

    def rows(self) -> NDArray[np.int64]:
        """Return the rows that have classes, ascending."""
        return np.array(sorted(self.classes), np.int64)

    def table(self, rows: Sequence[int], num_classes: int) -> NDArray[np.bool_]:
        """Return which classes rows show, ``[B, C]``."""
        found = np.zeros((len(rows), num_classes), np.bool_)
        for place, row in enumerate(rows):
            found[place, list(self.classes[row])] = True
        return found


def read_multilabels(path: str | Path, reader: LabelMapReader) -> MultiLabels:
    """Read multi-labels out of JSON.

    Parameters
    ----------
    path
        A list of lists, as ImageNet's real.json: the classes of each of the store's images, in the order of their file names
        (the last parts of their ids). Or an object from image id, or file name, to a class or a list of classes. Classes are
        numbers, ids or names of the store's.

    Raises
    ------
    OptionError
        The file cannot be read, or is something else.
    ImagesError
        A list for another number of images, names that several images share, or none that is known.
    ClassMapError
        Classes that the store does not have.
    """
    given = _read_json(path)
    numbers, classes, empty, unknown = ClassNumbers(reader.info), {}, 0, 0
    for key, row, value in _entries(given, reader, str(path)):
        where = f"{path}: {key}"
        labels = tuple(dict.fromkeys(numbers.of(each, where) for each in (value if isinstance(value, list) else [value])))
        if row is None:
            unknown += 1
        elif labels:
            classes[row] = labels
        else:
            empty += 1
    if not classes:
        raise ImagesError(
            f"{path}: expected classes of images of the store, found none ({unknown} other images, {empty} empty)"
        )
    return MultiLabels(classes, empty, unknown)


def stored_multilabels(reader: LabelMapReader, least: float, by: str) -> MultiLabels:
    """Take the classes of at least this probability out of a store's maps, of all images that are done.

    Raises
    ------
    ImagesError
        No class of any image is so probable.
    """
    rows = np.flatnonzero(reader.status() == Status.DONE)
    classes, empty = {}, 0
    for part, scores in score_batches(reader, rows, by):
        for row, found in zip(part.tolist(), scores >= least, strict=True):
            if found.any():
                classes[row] = tuple(np.flatnonzero(found).tolist())
            else:
                empty += 1
    if not classes:
        raise ImagesError(f"{reader!r}: none of {empty} images has a class of probability {least:g} or more")
    return MultiLabels(classes, empty)


def _read_json(path: str | Path) -> list[Any] | dict[str, Any]:
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"{path}: expected JSON: {error}") from error
    if not isinstance(given, list | dict):
        raise OptionError(f"{path}: expected a list of lists, or an object from image to classes, got {type(given).__name__}")
    return given


def _entries(given: list[Any] | dict[str, Any], reader: LabelMapReader, path: str) -> Iterator[tuple[str, int | None, Any]]:
    """Yield (what to call it in a message, row or None, classes)."""
    rows_by_name = _rows_by_name(reader)
    if isinstance(given, list):
        if len(given) != sum(map(len, rows_by_name.values())):
            count = sum(map(len, rows_by_name.values()))
            raise ImagesError(
                f"{path}: expected a list of {count} lists, one for each of the store's images in the order of their file "
                f"names, got {len(given)}; for some of the images give an object from image id to classes"
            )
        rows = (row for name in sorted(rows_by_name) for row in sorted(rows_by_name[name]))
        for number, (row, value) in enumerate(zip(rows, given, strict=True)):
            if not isinstance(value, list):
                raise OptionError(f"{path}: [{number}]: expected a list of classes, got {value!r}")
            yield f"[{number}]", row, value
        return
    found, known = reader.ids.find(list(given))
    for (key, value), row, there in zip(given.items(), found.tolist(), known.tolist(), strict=True):
        yield repr(key), row if there else _by_name(key, rows_by_name, path), value


def _rows_by_name(reader: LabelMapReader) -> dict[str, list[int]]:
    names: dict[str, list[int]] = {}
    for row, image_id in enumerate(reader.ids):
        if image_id:
            names.setdefault(image_id.rpartition("/")[2], []).append(row)
    return names


def _by_name(key: str, rows_by_name: Mapping[str, list[int]], path: str) -> int | None:
    rows = rows_by_name.get(key, [])
    if len(rows) > 1:
        raise ImagesError(f"{path}: {key!r}: expected an image id, got a file name that {len(rows)} images have")
    return rows[0] if rows else None
