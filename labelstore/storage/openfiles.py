"""The shard files that a reader keeps open: so many, the least recently used are closed."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Iterable

from labelstore.storage.chunks import DataFile
from labelstore.threads import ProcessLock

_MOST_FILES = 2048
Files = tuple[DataFile, ...]


class OpenFiles:
    """The open files of shards.

    A file is closed when the last one who holds it lets go, never while it is being read. Safe to share between threads;
    a forked child goes on with the files of its parent.

    Parameters
    ----------
    reopen
        Opens and checks the files of a shard.
    files_a_shard
        How many that are. At most half of the files that the process may open are kept.
    """

    def __init__(self, reopen: Callable[[int], Files], files_a_shard: int) -> None:
        self._reopen = reopen
        self._limit = most_shards(files_a_shard)
        self._open: OrderedDict[int, Files] = OrderedDict()
        self.lock = ProcessLock()
        """The lock of all that is kept open."""

    def __len__(self) -> int:
        return len(self._open)

    def of(self, shard: int) -> Files:
        """Return one shard's files."""
        files = self._open.get(shard)
        if files is not None and len(self._open) < self._limit:  # nothing will be closed: the order of use does not matter
            return files
        with self.lock():
            return self._get(shard)

    def of_each(self, shards: Iterable[int]) -> dict[int, Files]:
        """Return shards' files, by shard."""
        if len(self._open) < self._limit:
            found = {shard: self._open.get(shard) for shard in shards}
            if None not in found.values():
                return {shard: files for shard, files in found.items() if files is not None}
            shards = found
        with self.lock():
            return {shard: self._get(shard) for shard in shards}

    def _get(self, shard: int) -> Files:
        files = self._open.get(shard)
        if files is None:
            return self.keep(shard, self._reopen(shard))
        self._open.move_to_end(shard)
        return files

    def keep(self, shard: int, files: Files) -> Files:
        """Take in a shard's open files. The caller holds the lock."""
        self._open[shard] = files
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        return files


def most_shards(files_a_shard: int) -> int:
    """Return how many shards may be kept open in this process."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    files = _MOST_FILES if allowed == resource.RLIM_INFINITY else min(_MOST_FILES, allowed // 2)
    return max(files // max(files_a_shard, 1), 1)
