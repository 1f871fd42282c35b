"""The images of a source: ids, labels, and where each one lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.credentials import credentials_in_id, safe_id
from labelstore.errors import ImagesError
from labelstore.pipelines.sources.places import Place

NO_LABEL = -1
NOT_UTF8 = "the file's name is not UTF-8: rename it, or no data set finds its row"
_SHOWN = 3
Targets = tuple[NDArray[np.int32], tuple[str, ...] | None]


class Places(Protocol):
    """Where images lie, by row."""

    def __getitem__(self, row: int) -> Place: ...


@dataclass(frozen=True)
class Listing:
    """The images of a source, in the order of the store's rows.

    ``root`` is what the store records of where they are. ``targets`` are the images' labels, int32 ``[N]``, -1 where there is
    none: indices into ``target_names`` where those are known. ``notes`` are what the user should know of them.
    """

    root: str
    ids: tuple[str, ...]
    targets: NDArray[np.int32]
    target_names: tuple[str, ...] | None
    places: Places
    notes: tuple[str, ...] = ()

    def part(self, rows: range) -> tuple[Place, ...]:
        """Return where some rows' images lie."""
        return tuple(self.places[row] for row in rows)


@dataclass(frozen=True)
class Reordered:
    """Places in another order."""

    places: Places
    order: NDArray[np.int64]

    def __getitem__(self, row: int) -> Place:
        return self.places[int(self.order[row])]


def sorted_by_id(ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the order that puts ids in byte order."""
    return np.array(sorted(range(len(ids)), key=lambda row: ids[row].encode()), np.int64)


def check_ids(ids: Sequence[str], places: Places, where: str) -> None:
    """Refuse ids that cannot be kept, or that two images have.

    Raises
    ------
    ImagesError
        Names the id, and both places where it is taken twice.
    """
    seen: dict[str, int] = {}
    for row, image_id in enumerate(ids):
        problem = id_problem(image_id)
        if problem:
            raise ImagesError(f"{_shown(where)}: image id {safe_id(image_id)!r}: {problem}")
        first = seen.setdefault(image_id, row)
        if first != row:
            both = f"{places[first]} and {places[row]}"
            raise ImagesError(_shown(f"{where}: two images have the id {image_id!r}: {both}"))


def _shown(text: str) -> str:
    """A text that can be printed, whatever bytes are in file names."""
    return text.encode(errors="backslashreplace").decode()


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)


def escaped_id(name: str) -> str:
    """Return an image id of a file whose name is not UTF-8: its odd bytes as ``\\xe9``."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def id_problem(image_id: str) -> str:
    """Why a text is no image id, or ''."""
    try:
        image_id.encode()
    except UnicodeEncodeError:
        return f"expected UTF-8, got {os.fsencode(image_id)!r}"
    if not image_id or "\0" in image_id:
        return "expected a text without NUL" if image_id else "expected a text, got an empty one"
    if credentials_in_id(image_id):
        return "expected no credentials in it (a signed query, a token, user:password@): give ids of their own (--id-column)"
    return "expected no '..' in it" if ".." in image_id.split("/") else ""


def folder_targets(ids: Sequence[str]) -> Targets:
    """Return labels where every image lies in a folder below the root, numbered as torchvision's ImageFolder numbers them."""
    folders = [image_id.split("/", 1)[0] if "/" in image_id else None for image_id in ids]
    names = sorted({folder for folder in folders if folder is not None})
    if None in folders:
        return np.full(len(ids), NO_LABEL, np.int32), None
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[folder] for folder in folders if folder is not None], np.int32), tuple(names)


def named_targets(labels: Sequence[str]) -> Targets:
    """Return labels that are given in words or numbers, '' where there is none: numbers stay what they are, words are numbered
    in their order. Words are what `int` takes but `str` writes otherwise, too: ``01`` and ``1`` are two."""
    try:
        numbers = np.array([_number(label) if label else NO_LABEL for label in labels], np.int64)
    except ValueError:
        names = sorted({label for label in labels if label})
        index = {name: number for number, name in enumerate(names)}
        return np.array([index.get(label, NO_LABEL) for label in labels], np.int32), tuple(names)
    except OverflowError as error:
        raise ImagesError(f"labels: expected whole numbers from 0 to 2^31 - 1, got {error}") from error
    if len(numbers) and (numbers.min() < NO_LABEL or numbers.max() > np.iinfo(np.int32).max):
        raise ImagesError(f"labels: expected whole numbers from 0, got {numbers.min()} to {numbers.max()}")
    return numbers.astype(np.int32), None


def stated_targets(ids: Sequence[str], given: Sequence[str] | None, where: str) -> tuple[Targets, tuple[str, ...]]:
    """Return the images' own labels, and notes for the user: labels that are given go before the folders that images lie in.

    Parameters
    ----------
    given
        As for `named_targets`; None: no label is given at all, and folders are labels.
    where
        What gives them, for the notes.
    """
    folders = folder_targets(ids)
    if given is None:
        return folders, ()
    notes, (numbers, names) = [], folders
    if names is not None and any(names[number] != label for number, label in zip(numbers.tolist(), given, strict=True)):
        shown = f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        notes.append(f"Labels are taken from {where}; the folders ({shown}) are not")
    without = sum(not label for label in given)
    if without:
        notes.append(f"{without} of {len(given)} images have no label in {where}, and so none")
    return named_targets(given), tuple(notes)


def _number(label: str) -> int:
    number = int(label)
    if str(number) != label:
        raise ValueError(label)
    if abs(number) >= 2**63:
        raise OverflowError(label)
    return number
