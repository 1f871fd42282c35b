"""How the reader gets at a store's bytes, local or not: a source gives rows of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.schema import ArraySpec

UsePart = Callable[[slice, dict[str, NDArray[Any]]], None]


class Source(Protocol):
    """An open store. Safe to share between threads; can be pickled; survives fork."""

    where: str
    direct: bool
    """Whether all files are laid out as this project writes them."""

    def is_committed(self, shard: int) -> bool:
        """Whether a shard has a commit.

        Raises
        ------
        DamagedError
            The commit and the files do not fit.
        """
        ...

    def renew(self, shards: Sequence[int]) -> bool:
        """Look whether shards that have been found committed were made again since; forget what is known of those.

        Returns
        -------
        bool
            Whether any was: what has been read of it may be of no commit, and is to be read again, from its status on.

        Raises
        ------
        DamagedError, StoreReadError
        """
        ...

    def seals(self, shards: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return a number for each shard that changes with its content, out of shards that have been found committed."""
        ...

    def status(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return what rows hold, as `Status` numbers; pending where their shard has no commit. Raises as `is_committed`."""
        ...

    def row_status(self, row: int) -> int:
        """Return what one row is known to hold: `status` of it, or pending where that would have to be read first."""
        ...

    def each_part(self, specs: Sequence[ArraySpec], rows: NDArray[np.int64], threads: int, use: UsePart) -> None:
        """Read rows of arrays, ``[b, *row_shape]``, in parts, out of shards that `status` has found committed.

        Each part is handed to ``use``, with its place among the rows, by the thread that has decoded it; so many threads at
        once. None is left when this returns. The arrays are lent: what is to outlast ``use`` must be copied.

        Raises
        ------
        DamagedRowError
            A chunk does not decode to what its checksum says.
        ChangedError
            A shard was made again meanwhile.
        """
        ...

    def row(self, specs: Sequence[ArraySpec], row: int) -> dict[str, NDArray[Any]]:
        """Return one row of arrays, ``[*row_shape]`` each; else as `each_part`."""
        ...

    def index_array(self, spec: ArraySpec) -> NDArray[Any]:
        """Return all rows of an array that was written when the store was created (``ids``, ``targets``)."""
        ...

    def index_rows(self, spec: ArraySpec, shard: int) -> NDArray[Any]:
        """Return such an array's rows of one shard."""
        ...

    def file_key(self, spec: ArraySpec, shard: int) -> str:
        """Return where a shard's file of an array lies below the store: ``<array>/<file>``."""
        ...


class ChangedError(Exception):
    """Inside the storage layer: a shard was made again while it was read; what was read is to be forgotten, and read again."""


class DamagedRowError(Exception):
    """Inside the storage layer: which row is damaged and what was seen; the reader adds the image id."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(row, message)
        self.row = row
        self.message = message
