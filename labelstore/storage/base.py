"""How the reader gets at a store's bytes, local or not: a source opens shards, a shard gives rows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from labelstore.schema import ArraySpec


class Shard(Protocol):
    """A committed shard, checked against its commit. Safe to use from several threads."""

    status: NDArray[np.uint8]
    """``[shard_size]``, what each row holds."""

    def rows(self, spec: ArraySpec, locals_: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of one array, ``[n, *row_shape]``; ``locals_`` count from the shard's first row.

        Raises
        ------
        DamagedRowError
            A chunk does not decode to what its checksum says.
        """
        ...


class Source(Protocol):
    """An open store. Safe to share between threads; can be pickled; survives fork."""

    where: str
    direct: bool
    """Whether all files are laid out as this project writes them."""

    def open_shard(self, shard: int) -> Shard | None:
        """Return a committed shard, or None while it has no commit.

        Raises
        ------
        DamagedError
            The commit and the files do not fit.
        """
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


class DamagedRowError(Exception):
    """Inside the storage layer: which local row is damaged and what was seen; the reader adds the image id."""

    def __init__(self, local: int, message: str) -> None:
        super().__init__(local, message)
        self.local = local
        self.message = message
