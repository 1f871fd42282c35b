"""What happens in folders, as the kernel tells it (inotify): which files come, go and are renamed into them. Linux alone."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

KINDS = {"created": 0x100, "moved": 0x80, "deleted": 0x200}
_WATCH_IS_GONE = 0x8000
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Event:
    """A file of a folder was ``created``, ``moved`` into its place, or ``deleted``."""

    folder: str
    kind: str
    name: str
    at: float
    """Seconds of `time.monotonic`."""

    @property
    def is_in_place(self) -> bool:
        """Whether a chunk's file, whole by then, got its name."""
        return self.kind == "moved" and self.name.startswith("c.")


class FolderEvents:
    """Events of some folders below a root, from when each is there; a folder that is made anew is watched anew."""

    def __init__(self, root: Path, folders: Collection[str]) -> None:
        self._root, self._missing = root, set(folders)
        self._watched: dict[int, str] = {}
        self._seen: list[Event] = []
        self._changed = threading.Condition()
        self._over = False
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> FolderEvents:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        os.close(self._descriptor)

    def ready(self) -> None:
        """Wait until all of the folders are watched: for those that are there."""
        while self._missing:
            time.sleep(0.001)

    def so_far(self) -> list[Event]:
        with self._changed:
            return list(self._seen)

    def count(self, kinds: Collection[tuple[str, str]]) -> int:
        """How many there were of some kinds, each a folder and what happened in it."""
        with self._changed:
            return self._count(kinds)

    def wait_until(self, count: int, kinds: Collection[tuple[str, str]], seconds: float) -> bool:
        """Wait until there were so many in all; return whether they came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count(kinds) >= count, seconds)

    def _count(self, kinds: Collection[tuple[str, str]]) -> int:
        return sum((event.folder, event.kind) in kinds for event in self._seen)

    def _listen(self) -> None:
        while not self._over:
            self._watch_missing()
            if select.select([self._descriptor], [], [], 0.002 if self._missing else 0.05)[0]:
                self._read()

    def _watch_missing(self) -> None:
        for name in sorted(self._missing):
            mask = sum(KINDS.values())
            watch = _libc.inotify_add_watch(self._descriptor, os.fsencode(self._root / name), mask)
            if watch >= 0:
                self._watched[watch] = name
                self._missing.discard(name)

    def _read(self) -> None:
        data, found, place = os.read(self._descriptor, 1 << 16), [], 0
        while place < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, place)
            name = data[place + _HEADER.size : place + _HEADER.size + length].rstrip(b"\0").decode()
            place += _HEADER.size + length
            if mask & _WATCH_IS_GONE:
                self._missing.add(self._watched.pop(watch))
            else:
                found += [
                    Event(self._watched[watch], kind, name, time.monotonic()) for kind, bit in KINDS.items() if mask & bit
                ]
        with self._changed:
            self._seen += found
            self._changed.notify_all()
