"""The shard files that a reader keeps open, as many as the process can spare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from labelstore.errors import StoreReadError
from labelstore.storage.budget import BUDGET
from labelstore.storage.chunks import DataFile
from labelstore.storage.failures import SCARCE, again
from labelstore.threads import ProcessLock

Files = tuple[DataFile, ...]


Reopen = Callable[[int], Files]
"""Opens and checks the files of a shard."""


class OpenFiles:
    """The open files of shards; see `labelstore.storage.budget.Budget` for how many.

    A file is closed when the last one that holds it lets go, never while it is being read. Safe to share between threads;
    a forked child goes on with the files of its parent.

    Parameters
    ----------
    reopen
        See `Reopen`. Not to refer to the object that these files belong to: they are closed when it is gone.
    files_a_shard
        How many that are.
    """

    def __init__(self, reopen: Reopen, files_a_shard: int) -> None:
        self._reopen, self._reopen_patiently = reopen, again(reopen)
        self._files_a_shard = max(files_a_shard, 1)
        self._open: dict[int, Files] = {}
        self._lock, self._dropped = ProcessLock(), 0

    def __len__(self) -> int:
        return len(self._open)

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            BUDGET.let_go(self._open)

    def of(self, shard: int) -> Files:
        """Return one shard's files."""
        files = self._open.get(shard)
        if files is not None and not BUDGET.tight:  # nothing will be closed: the order of use does not matter
            return files
        return self.of_each([shard])[shard]

    def of_each(self, shards: Iterable[int]) -> dict[int, Files]:
        """Return the files, by shard, of the first of some shards: as many as there is room for, one at least."""
        found = {shard: self._open.get(shard) for shard in shards}
        if not BUDGET.tight and None not in found.values():
            return {shard: files for shard, files in found.items() if files is not None}
        some = dict(itertools.islice(found.items(), max(BUDGET.most() // 2 // self._files_a_shard, 1)))
        BUDGET.use(self._open, some)
        lent: dict[int, Files] = {}
        for shard, files in some.items():
            reopen = self._reopen if lent else self._reopen_patiently  # waiting, it must hold nothing that others wait for
            try:
                lent[shard] = self._open_one(shard, reopen) if files is None else files
            except StoreReadError as error:
                if not lent or error.errno not in SCARCE:
                    raise
                break
        return lent

    def keep(self, shard: int, files: Files) -> None:
        """Take in a shard's open files."""
        BUDGET.keep(self._open, shard, files)

    def drop(self, shards: Iterable[int]) -> None:
        """Close shards' files. Those that are being opened now are not kept."""
        with self._lock():
            self._dropped += 1
            BUDGET.drop(self._open, shards)

    def _open_one(self, shard: int, reopen: Reopen) -> Files:
        dropped = self._dropped
        files = reopen(shard)
        with self._lock():
            if self._dropped == dropped:  # else they may be of a commit that does not count any more
                self.keep(shard, files)
        return files
