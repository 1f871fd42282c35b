"""What a survey has found of a store, kept in the user's cache: the next one looks at shards alone that are new or others.

A shard is known by its commit's checksum and by its images' own labels. What is kept can always be found again: a file that is
damaged, or of another store, is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zipfile
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.errors import CacheError
from labelstore.pipelines.user_cache import cache_folder
from labelstore.reader import LabelMapReader
from labelstore.schema import Status
from labelstore.storage.private import private_folder
from labelstore.survey import COLUMNS, Survey

_VERSION = 1
_MOST_FILES = 32
_WRONG = (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile)
"""What numpy raises for files that are none of its."""


class SurveyCache:
    """What is kept of one store's survey. For one thread."""

    def __init__(self, location: str, reader: LabelMapReader, survey: Survey) -> None:
        self._reader, self._survey = reader, survey
        self._name = f"{_identity(location, reader)}.npz"
        self._loaded = 0

    def apply(self) -> None:
        """Enter into the survey what is kept of shards that are what they were."""
        try:
            with (self._folder() / self._name).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                keys, columns = kept["keys"], {name: kept[name] for name in COLUMNS}
                rows = kept["known"]
        except (*_WRONG, CacheError):
            return
        if not self._fits(keys, rows, columns):
            return
        now = self._keys()[: len(keys)]
        same = np.repeat((now == keys[: len(now)]) & (now != 0), self._reader.info.shard_size)
        most = min(len(same), len(rows), len(self._survey))
        chosen = np.flatnonzero(same[:most] & rows[:most] & (self._status()[:most] == Status.DONE))
        for name, values in columns.items():
            getattr(self._survey, name)[chosen] = values[chosen]
        self._survey.known[chosen] = True
        self._loaded = len(chosen)

    def save(self) -> None:
        """Keep what is known; where that cannot be written it is looked at again next time."""
        survey = self._survey
        if int(survey.known.sum()) == self._loaded:
            return
        keys = np.where(self._complete(), self._keys(), 0)
        with contextlib.suppress(OSError, CacheError):
            folder = self._folder()
            number, partial = tempfile.mkstemp(".partial", self._name, folder)
            try:
                with os.fdopen(number, "wb") as file:
                    np.savez(file, keys=keys, known=survey.known, **{name: getattr(survey, name) for name in COLUMNS})
                Path(partial).replace(folder / self._name)
            finally:
                Path(partial).unlink(missing_ok=True)
            _prune(folder)
            self._loaded = int(survey.known.sum())

    def _folder(self) -> Path:
        return private_folder("the cache of surveys", cache_folder("survey"))

    def _status(self) -> NDArray[np.uint8]:
        return self._reader.status()[: len(self._survey)]

    def _keys(self) -> NDArray[np.uint64]:
        """What a shard is known by, ``[S]``; 0 where it has no commit."""
        self._status()  # finds the commits
        size, survey = self._reader.info.shard_size, self._survey
        seals = self._reader.shard_seals()[: -(-len(survey) // size)].astype(np.uint64)
        merged = survey.merging.tobytes()
        labels = [google_crc32c.value(survey.own[at * size : (at + 1) * size].tobytes() + merged) for at in range(len(seals))]
        return np.where(seals > 0, seals << np.uint64(32) | np.array(labels, np.uint64), np.uint64(0))

    def _complete(self) -> NDArray[np.bool_]:
        """Mark the shards of which every row that is done is known."""
        size = self._reader.info.shard_size
        missing = np.flatnonzero((self._status() == Status.DONE) & ~self._survey.known)
        found = np.ones(-(-len(self._survey) // size), np.bool_)
        found[missing // size] = False
        return found

    def _fits(self, keys: NDArray[np.uint64], known: NDArray[np.bool_], columns: dict[str, NDArray[np.generic]]) -> bool:
        """Whether arrays are as `save` writes them: another version may have written others."""
        if keys.dtype != np.uint64 or known.dtype != np.bool_ or keys.ndim != 1 or known.ndim != 1:
            return False
        for name, values in columns.items():
            own = getattr(self._survey, name)
            if values.dtype != own.dtype or values.shape != (len(known), *own.shape[1:]):
                return False
        best = columns["best"][known]
        return bool((best.astype(np.int64) < self._survey.num_classes).all())


def _identity(location: str, reader: LabelMapReader) -> str:
    """What tells a store from another, and from one that was made anew at the same place; not how many rows it has."""
    info = reader.info
    where = location if "://" in location else os.path.realpath(location)
    made = (info.created, info.annotator.weights_sha256, info.encoding, info.top_k, info.map_size, info.num_classes)
    return hashlib.sha256(f"{_VERSION} {where} {made} {info.shard_size}".encode(errors="surrogateescape")).hexdigest()


def _prune(folder: Path) -> None:
    """Keep the files that were written last."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    for file in files[:-_MOST_FILES]:
        file.unlink(missing_ok=True)
