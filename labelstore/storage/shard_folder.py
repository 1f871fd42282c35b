"""Shards of a store behind a URL, fetched whole into a folder here that many processes fill and read at the same time.

The folder holds files under the keys that they have in the store. A shard counts once its commit is there, which is written
last and is the same as the store's: so whatever a process leaves that is killed is fetched again, and no file is ever changed
in place. The file ``shards`` says what each shard takes, and locks on its bytes keep processes from fetching the same: they
save work, nothing else depends on them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from labelstore.errors import CacheError
from labelstore.storage.budget import close_quietly
from labelstore.storage.objects import Objects, Part, SealedFile
from labelstore.storage.private import open_private
from labelstore.threads import ProcessLock

_BYTES_AT_ONCE = 1 << 26
"""What is fetched before the next shards are looked at: others may have brought these by then."""
_PART = 1 << 23
_SIZE = np.dtype("<i8")


class Shard(NamedTuple):
    """A committed shard: its commit's key and content, and its files."""

    commit_key: str
    commit: bytes
    files: tuple[SealedFile, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.commit) + sum(file.length for file in self.files)


class ShardFolder:
    """The folder. Threads, processes and forked children may share it.

    Parameters
    ----------
    root
        Made if it is not there, in a folder of this user's alone. Where it may not be written, what is there is used.
    objects
        Where shards come from.
    num_shards
        Of the store.
    most_bytes
        What all shards here may take together. By default what they take, and what is free on the disk.

    Raises
    ------
    CacheError
        The folder cannot be used.
    """

    def __init__(self, root: Path, objects: Objects, num_shards: int, most_bytes: int | None) -> None:
        self.root = root
        self._objects, self._num_shards = objects, num_shards
        self._thread_lock = ProcessLock()
        with contextlib.suppress(OSError):  # told below
            root.mkdir(mode=0o700, exist_ok=True)
        self._fd, self._writable = open_private("cache_dir", root / "shards")
        self._most = self._taken_and_free() if most_bytes is None else most_bytes

    def __del__(self, close: Callable[[int], None] = close_quietly) -> None:
        if hasattr(self, "_fd"):
            close(self._fd)

    def bring(self, wanted: Mapping[int, Shard]) -> set[int]:
        """Fetch those of some shards that are not here; return which are here now.

        The others have no room, or are not what was committed. Raises as `Objects.fetch` does.
        """
        here = {shard for shard, said in wanted.items() if self._holds(said)}
        left = [shard for shard in wanted if shard not in here]
        with self._thread_lock():
            while left and self._writable:
                with self._held(left, wanted) as mine:
                    here |= self._bring({shard: wanted[shard] for shard in mine})
                left = [shard for shard in left if shard not in mine]
        return here

    def bring_files(self, keys: Sequence[str], most_bytes: int) -> bool:
        """Fetch those of some files that are not here, of so many bytes at most each; return whether all are here now.

        They are not checked. Raises as `Objects.fetch` does.
        """
        if all(map(self._has, keys)):
            return True
        step = max(_BYTES_AT_ONCE // max(most_bytes, 1), 1)
        with self._thread_lock(), self._locked(self._num_shards + 1):
            missing = [key for key in keys if not self._has(key)]
            for start in range(0, len(missing), step):
                some = missing[start : start + step]
                found = self._objects.fetch([Part(key, 0, most_bytes + 1) for key in some])
                whole = {key: data for key, data in zip(some, found, strict=True) if data is not None}
                if len(whole) < len(some) or not self._write(whole):
                    return False
        return True

    def forget(self, keys: Iterable[str]) -> None:
        """Remove files that have turned out to be damaged; a shard's commit suffices."""
        for key in keys:
            with contextlib.suppress(OSError):
                (self.root / key).unlink()

    def _has(self, key: str) -> bool:
        try:
            return (self.root / key).exists()
        except OSError:
            return False

    def has_commit(self, key: str, commit: bytes | None) -> bool:
        """Whether a shard's commit is here, and is this one."""
        try:
            return (self.root / key).read_bytes() == commit
        except OSError:
            return False

    def _holds(self, shard: Shard) -> bool:
        return self.has_commit(shard.commit_key, shard.commit)

    def _bring(self, wanted: Mapping[int, Shard]) -> set[int]:
        """`bring` for shards that this process has locked."""
        here = {shard for shard, said in wanted.items() if self._holds(said)}  # by another process, meanwhile
        missing = {shard: said for shard, said in wanted.items() if shard not in here}
        admitted = self._admit({shard: said.size for shard, said in missing.items()})
        parts = [part for shard in admitted for file in wanted[shard].files for part in _parts(file)]
        fetched = iter(self._objects.fetch(parts))
        for shard in admitted:
            said = wanted[shard]
            files = {file.key: b"".join(next(fetched) or b"" for _ in _parts(file)) for file in said.files}
            if all(_is_whole(file, files[file.key]) for file in said.files):
                self.forget([said.commit_key])
                if self._write(files) and self._write({said.commit_key: said.commit}):
                    here.add(shard)
        return here

    def _write(self, files: Mapping[str, bytes]) -> bool:
        """Write files, each whole or not at all; return whether that was possible."""
        partial = None
        try:
            for key, data in files.items():
                path = self.root / key
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
                partial.write_bytes(data)
                partial.replace(path)
        except OSError as error:
            if partial is not None:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: OSError) -> None:
        """Keep no more shards, and say so once: they are read from the server."""
        if self._writable:
            self._writable = False
            warnings.warn(f"{self.root}: no more shards are kept: {error.strerror}", stacklevel=2)

    def _admit(self, sizes: Mapping[int, int]) -> list[int]:
        """Enter what shards take, as far as they fit; return those, none where that cannot be entered."""
        try:
            return self._enter(sizes)
        except OSError as error:
            self._give_up(error)
            return []

    def _enter(self, sizes: Mapping[int, int]) -> list[int]:
        admitted = []
        with self._locked(self._num_shards):
            known = self._sizes()
            total = int(known.sum())
            for shard, size in sizes.items():
                grown = total + size - int(known[shard])
                if grown <= self._most:
                    total = grown
                    os.pwrite(self._fd, np.array(size, _SIZE).tobytes(), shard * _SIZE.itemsize)
                    admitted.append(shard)
        return admitted

    def _sizes(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        size = self._num_shards * _SIZE.itemsize
        return np.frombuffer(os.pread(self._fd, size, 0).ljust(size, b"\0"), _SIZE)

    def _taken_and_free(self) -> int:
        try:
            disk = os.statvfs(self.root)
            return int(self._sizes().sum()) + disk.f_bavail * disk.f_frsize
        except OSError as error:
            raise CacheError(f"cache_dir: {self.root}: cannot be looked at: {error.strerror}") from error

    @contextlib.contextmanager
    def _held(self, shards: Sequence[int], wanted: Mapping[int, Shard]) -> Iterator[list[int]]:
        """Lock shards that no other process has locked, some megabytes of them; wait for one where all are."""
        mine: list[int] = []
        size = 0
        try:
            for shard in shards:
                if size >= _BYTES_AT_ONCE:
                    break
                if self._try_lock(shard):
                    mine.append(shard)
                    size += wanted[shard].size
            if not mine:
                mine.append(shards[0])
                _locking(self._fd, fcntl.LOCK_EX, shards[0])
            yield mine
        finally:
            for shard in mine:
                _locking(self._fd, fcntl.LOCK_UN, shard)

    def _try_lock(self, shard: int) -> bool:
        try:
            _locking(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, shard)
        except (BlockingIOError, PermissionError):
            return False
        return True

    @contextlib.contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        if self._writable:
            _locking(self._fd, fcntl.LOCK_EX, place)
        try:
            yield
        finally:
            if self._writable:
                _locking(self._fd, fcntl.LOCK_UN, place)


def _locking(fd: int, operation: int, place: int) -> None:
    """Lock or unlock a byte of a file; where the disk knows no locks, work is done twice."""
    try:
        fcntl.lockf(fd, operation, 1, place)
    except (BlockingIOError, PermissionError):
        raise
    except OSError:
        return


def _parts(file: SealedFile) -> list[Part]:
    """What to ask for to get a file whole, and a byte behind it, of which there should be none."""
    starts = range(0, file.length + 1, _PART)
    return [Part(file.key, start, min(start + _PART, file.length + 1)) for start in starts]


def _is_whole(file: SealedFile, data: bytes) -> bool:
    return len(data) == file.length and google_crc32c.value(data) == file.crc32c
