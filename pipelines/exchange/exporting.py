"""`export`: a store's maps in other formats. What all of them share: which rows, in what parts, and where to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, OptionError, StoreWriteError
from labelstore.ids import pack_ids
from labelstore.labelmap import LabelMap
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.store import writing
from labelstore.reader import LabelMapReader
from labelstore.schema import Status, StoreInfo

_AT_ONCE = 256
UNFINISHED = "labelstore-unfinished.json"
"""A file in the folder of an export that is being written, or was cut off: says which."""


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    dest: str
    images: int
    left_out: int
    num_bytes: int


@dataclass(frozen=True)
class Part:
    """Some of the chosen rows: where they are among these, their numbers in the store, their ids and maps."""

    place: slice
    rows: NDArray[np.int64]
    ids: list[str]
    maps: LabelMap


class ChosenMaps:
    """The rows of a store that are to be exported, in order: those that hold a map.

    Raises
    ------
    OptionError, UnknownIdError
        As `Selection.rows`; or none of the rows holds a map.
    """

    def __init__(self, store: str, selection: Selection, observer: Observer) -> None:
        self.reader = LabelMapReader(store, compiled=False)
        self._observer = observer
        meant = selection.rows(self.reader.ids)
        status = self.reader.status(meant)
        self.rows: NDArray[np.int64] = meant[status == Status.DONE]
        self.left_out = int(((status == Status.FAILED) | (status == Status.PENDING)).sum())
        if not len(self.rows):
            raise OptionError(f"{store}: none of the {len(meant)} chosen rows holds a map")
        if self.left_out:
            observer.warning(f"{self.left_out} images without a map (failed or pending) are left out")

    def ids(self) -> list[str]:
        """Return the images' ids."""
        table = self.reader.ids
        return list(table) if len(self.rows) == len(table) else [table[row] for row in self.rows.tolist()]

    def parts(self) -> Iterator[Part]:
        """Yield the rows in parts, and tell whoever watches."""
        table = self.reader.ids
        self._observer.plan(len(self.rows), 0)
        for start in range(0, len(self.rows), _AT_ONCE):
            rows = self.rows[start : start + _AT_ONCE]
            yield Part(slice(start, start + len(rows)), rows, [table[row] for row in rows.tolist()], self.reader.read(rows))
            self._observer.rows(start + len(rows), 0)

    def info(self) -> StoreInfo:
        """Return what a store of these maps would say of itself, with the K best classes of every location."""
        info = self.reader.info
        return replace(
            info,
            num_rows=len(self.rows),
            id_bytes=pack_ids(self.ids()).shape[1],
            encoding="topk",
            spectral=None,
            baseline=info.baseline if info.encoding == "topk" else "zero",
            extents=(),
            ids_array="ids",
        )


def require_distinct(ids: Sequence[str], name_of: Callable[[str], str], why: str) -> None:
    """Refuse images that would have the same name outside of the store.

    Raises
    ------
    ImagesError
    """
    owners: dict[str, str] = {}
    for image_id in ids:
        name = name_of(image_id)
        other = owners.setdefault(name, image_id)
        if other != image_id:
            raise ImagesError(
                f"{other!r} and {image_id!r}: {why}, which is {name!r} for both; export them one after the other, with --match"
            )


@contextmanager
def export_folder(dest: str, maps: ChosenMaps, kind: str, **options: object) -> Iterator[Path]:
    """Lend the folder of an export; one that was cut off is known by a file in it, and gone on with by the same export.

    Parameters
    ----------
    kind, options
        What is exported, and how: with the images, what tells one export from another.

    Raises
    ------
    OptionError
        There is something else already.
    StoreWriteError
        It cannot be written.
    """
    path, mark = Path(dest), Path(dest, UNFINISHED)
    said = json.dumps({"export": kind, **options, "ids_sha256": _digest(maps.ids())})
    try:
        there = mark.read_text() if mark.is_file() and not mark.is_symlink() else None
        if there not in (None, said):
            raise OptionError(f"{dest}: expected nothing, found another export that was cut off; choose another place")
        if there is None and path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise OptionError(f"{dest}: expected nothing, or an empty folder; choose another place, or remove what is there")
        path.mkdir(parents=True, exist_ok=True)
        mark.write_text(said)
    except OSError as error:
        raise StoreWriteError(f"{dest}: cannot be written: {error.strerror}") from error
    with writing(dest):
        yield path
        mark.unlink()


def require_whole(folder: str | Path) -> None:
    """Refuse to read an export that was cut off.

    Raises
    ------
    ImagesError
    """
    if Path(folder, UNFINISHED).exists():
        raise ImagesError(f"{folder}: an export that was cut off: expected a whole one; run it again (it left {UNFINISHED})")


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(ids).encode(errors="surrogateescape")).hexdigest()
