"""How many files of shards all readers of a process keep open together, and which of them are closed first.

A process may open so many files, of which the program around the readers needs some: half are left to it, and more where
they turn out to be scarce.
"""

from __future__ import annotations

import os
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sized
from typing import Any

from labelstore.storage.failures import SCARCE
from labelstore.threads import ProcessLock

_MOST_FILES = 4096
_SCARCE_SECONDS = 10.0
Kept = dict[int, Any]
"""The open files that a reader keeps, by shard."""


class Budget:
    """The files that are kept open in this process, of all readers, in the order of their use.

    What is closed here stays open until the last one that reads it lets go. Safe to share between threads; a forked child
    goes on with what its parent has kept.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._kept: OrderedDict[tuple[int, int], tuple[Kept, int]] = OrderedDict()
        self._files = 0
        self._scarce: tuple[int, float] = 0, 0.0
        self._inexact = False
        self.tight = False
        """Whether something must be closed soon; where not, the order of use does not matter."""

    def most(self) -> int:
        """Return how many files may be kept: half of what the process may open, less while they are scarce."""
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        usual = _MOST_FILES if allowed == resource.RLIM_INFINITY else min(_MOST_FILES, allowed // 2)
        found, until = self._scarce
        return min(usual, found) if time.monotonic() < until else usual

    def keep(self, owner: Kept, shard: int, files: Sized) -> None:
        """Enter a shard's files with their owner, and close the least recently used of all owners that are too many."""
        with self._lock():
            if shard in owner:  # another thread was quicker
                return
            self._kept[id(owner), shard] = owner, len(files)
            owner[shard] = files
            self._files += len(files)
            most = self.most()
            if self._files > most and self._inexact:
                self._recount()
            while self._files > most and len(self._kept) > 1:
                self._close_oldest()
            self.tight = self._files + len(files) > most

    def use(self, owner: Kept, shards: Iterable[int]) -> None:
        """Note that those of some shards that are kept are used now."""
        with self._lock():
            for shard in shards:
                if (id(owner), shard) in self._kept:
                    self._kept.move_to_end((id(owner), shard))

    def drop(self, owner: Kept, shards: Iterable[int]) -> None:
        """Close shards' files, if they are kept."""
        with self._lock():
            for shard in shards:
                _, files = self._kept.pop((id(owner), shard), (None, 0))
                self._files -= files
                owner.pop(shard, None)

    def let_go(self, owner: Kept) -> None:
        """Close all files of an owner that is gone. Takes no lock: the collector may call this in the middle of anything."""
        owner.clear()
        self._inexact = True

    def spare(self) -> bool:
        """Close half of what is kept, because the system has no descriptors left; return whether anything was."""
        with self._lock():
            if not self._kept:
                return False
            self._recount()
            for _ in range((len(self._kept) + 1) // 2):
                self._close_oldest()
            self._scarce = max(self._files, 1), time.monotonic() + _SCARCE_SECONDS
            self.tight = True
            return True

    def forked(self) -> None:
        """Note that this is a child now: another thread of the parent may have been in the middle of something."""
        self._inexact = True

    def _close_oldest(self) -> None:
        (_, shard), (owner, files) = self._kept.popitem(last=False)
        owner.pop(shard, None)
        self._files -= files

    def _recount(self) -> None:
        """Forget what owners that are gone had kept."""
        self._inexact = False
        for key in [key for key, (owner, _) in self._kept.items() if key[1] not in owner]:
            del self._kept[key]
        self._files = sum(files for _, files in self._kept.values())


BUDGET = Budget()
os.register_at_fork(after_in_child=BUDGET.forked)


def open_file(path: str, flags: int) -> int:
    """Open a file; where no descriptor is left, close files that are kept.

    Raises
    ------
    OSError
    """
    while True:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno not in SCARCE or not BUDGET.spare():
                raise


def close_quietly(fd: int, close: Callable[[int], None] = os.close) -> None:
    """Close a file that was read: nothing is lost if that fails. Also works while the interpreter ends."""
    try:
        close(fd)
    except OSError:
        return
