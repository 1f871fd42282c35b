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

from labelstore.pipelines.sources.bytesio import call, with_retries
from labelstore.pipelines.sources.spec import is_url
from labelstore.pipelines.user_cache import cache_folder

_VERSION = 2


@dataclass(frozen=True)
class TarIndex:
    """A tar file's images: names, where their bytes are, labels as they stand there ('': none)."""

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: tuple[str, ...]


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
            found = TarIndex(names, kept["starts"], kept["lengths"], labels)
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
        np.savez(partial, names=names, starts=index.starts, lengths=index.lengths, labels=labels)
        partial.replace(path)


def _packed(texts: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _unpacked(packed: NDArray[np.uint8], count: int) -> tuple[str, ...]:
    return tuple(bytes(packed).decode().split("\0")) if count else ()


def _path(file: str, stamp: str) -> Path:
    where = file if is_url(file) else os.path.realpath(file)
    digest = hashlib.sha256(f"{_VERSION} {where} {stamp}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder("tar") / f"{digest}.npz"
