"""The index of a tar file, kept in the user's cache so that it is made once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.image_formats import extensions
from labelstore.pipelines.sources.bytesio import call, with_retries
from labelstore.pipelines.sources.spec import is_url
from labelstore.pipelines.user_cache import cache_folder

_VERSION = 3


@dataclass(frozen=True)
class TarIndex:
    """A tar file's images: names, where their bytes are, labels as they stand there ('': none).

    ``others`` counts images of kinds that are not decoded, by extension.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: tuple[str, ...]
    others: tuple[tuple[str, int], ...] = ()

    def part(self, places: Sequence[int]) -> TarIndex:
        """Return the index of some of the images."""
        names, labels = (tuple(texts[at] for at in places) for texts in (self.names, self.labels))
        return TarIndex(names, self.starts[list(places)], self.lengths[list(places)], labels, self.others)


def stamp_of(file: str) -> str:
    """Return what changes when a file does: size, and time of change or the server's word for its content.

    Raises
    ------
    OSError
        It is not there.
    """
    if not is_url(file):
        status = Path(file).stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    info = with_retries(file, lambda system, path: call(system, "info", path))
    return " ".join(str(info.get(key)) for key in ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified"))


def load(file: str, stamp: str) -> TarIndex | None:
    """Return the index that was kept of a file as it is now, if there is one that can be read."""
    try:
        with np.load(_path(file, stamp), allow_pickle=False) as kept:
            names, labels = (_unpacked(kept[key], len(kept["starts"])) for key in ("names", "labels"))
            counts = kept["other_counts"].tolist()
            others = tuple(zip(_unpacked(kept["others"], len(counts)), counts, strict=True))
            found = TarIndex(names, kept["starts"], kept["lengths"], labels, others)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = len({len(found.names), len(found.starts), len(found.lengths), len(found.labels)}) == 1
    return found if whole else None


def save(file: str, stamp: str, index: TarIndex) -> None:
    """Keep an index; where the cache cannot be written it is made again next time."""
    path = _path(file, stamp)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    names, labels = _packed(index.names), _packed(index.labels)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        others = _packed([name for name, _ in index.others])
        counts = np.array([count for _, count in index.others], np.int64)
        spans = (index.starts, index.lengths)
        np.savez(partial, names=names, labels=labels, others=others, other_counts=counts, starts=spans[0], lengths=spans[1])
        partial.replace(path)


def _packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _unpacked(packed: NDArray[np.uint8], count: int) -> tuple[str, ...]:
    return tuple(bytes(packed).decode(errors="surrogateescape").split("\0")) if count else ()


def _path(file: str, stamp: str) -> Path:
    where = file if is_url(file) else os.path.realpath(file)
    digest = hashlib.sha256(f"{_VERSION} {extensions()} {where} {stamp}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder("tar") / f"{digest}.npz"
