"""Image ids as they are stored: bytes in a matrix, looked up by binary search, never a dict of a million strings.

Ids that are too many to be loaded whole are looked up on the disk: `ids_on_disk`.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import DamagedError, UnknownIdError

_BLOCK = 2**16
LONGEST_COMPARED = 1024
"""Comparing texts takes time that grows with the square of their length."""


class IdTable(Sequence[str]):
    """The ids of a store, by row; empty for holes. Safe to share between threads and processes.

    Parameters
    ----------
    where
        The store, for messages.
    width
        L, the bytes of an id at most.
    """

    def __init__(self, where: str, width: int) -> None:
        self._where, self._width = where, width

    @abstractmethod
    def find(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return rows of ids, and whether each id is there at all (its row means nothing if it is not)."""

    @abstractmethod
    def similar(self, key: str, most: int = 3) -> list[str]:
        """Return ids that somebody may have meant: the same file name elsewhere first, then near matches."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, NDArray[np.bytes_]]]:
        """Yield all ids as stored, in blocks of rows, each with its first row."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.find([key])[1][0])

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} image ids: {shown}{', ...' if len(self) > 3 else ''}>"

    def row(self, key: str) -> int:
        """Return the row of one id; as `rows`."""
        return int(self.rows([key])[0])

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of ids.

        Raises
        ------
        UnknownIdError
            With the first unknown id and those most like it.
        """
        rows, known = self.find(keys)
        if not known.all():
            key = str(keys[int(np.argmin(known))])
            close = self.similar(key)
            hint = f"; similar: {', '.join(map(repr, close))}" if close else ""
            raise UnknownIdError(f"{self._where}: no image id {key!r} among {len(self)}{hint}")
        return rows

    def _text(self, raw: Any) -> str:
        try:
            return bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise DamagedError(f"{self._where}/ids: expected UTF-8, found {bytes(raw)[:60]!r}") from error


class ImageIds(IdTable):
    """The ids of a store in memory. Immutable.

    Parameters
    ----------
    matrix
        uint8 ``[N, L]``, UTF-8, zero-padded.
    where
        The store, for messages.

    Raises
    ------
    DamagedError
        Two rows have the same id.
    """

    def __init__(self, matrix: NDArray[np.uint8], where: str) -> None:
        super().__init__(where, matrix.shape[1])
        self._count = len(matrix)
        self._bytes = np.ascontiguousarray(matrix).view(f"S{self._width}")[:, 0]
        ordered = bool((self._bytes[:-1] < self._bytes[1:]).all())
        self._order: NDArray[np.intp] | None = None if ordered else np.argsort(self._bytes, kind="stable")
        self._sorted = self._bytes if self._order is None else self._bytes[self._order]
        if self._order is not None:
            self._require_distinct(self._order)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        picked = self._bytes[row]
        return [self._text(raw) for raw in picked] if isinstance(row, slice) else self._text(picked)

    def __iter__(self) -> Iterator[str]:
        return map(self._text, self._bytes)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.bytes_]]]:
        """See `IdTable.blocks`."""
        for start in range(0, self._count, _BLOCK):
            yield start, self._bytes[start : start + _BLOCK]

    def row(self, key: str) -> int:
        """Return the row of one id; as `rows`, a hundred times a millisecond faster for one."""
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            return int(self.rows([key])[0])
        place = int(self._sorted.searchsorted(raw))
        if raw and place < self._count and self._sorted[place] == raw and b"\0" not in raw:
            return place if self._order is None else int(self._order[place])
        return int(self.rows([key])[0])

    def similar(self, key: str, most: int = 3) -> list[str]:
        """See `IdTable.similar`."""
        if max(len(key), self._width) > LONGEST_COMPARED:
            return []
        name = key.rsplit("/", 1)[-1]
        stem = name.rsplit(".", 1)[0].lower().encode(errors="replace")
        # A million ids are too many for difflib: let NumPy pick those that hold the name, else the neighbours in order.
        holds = np.flatnonzero(np.char.find(np.char.lower(self._bytes), stem) >= 0) if stem else np.empty(0, np.intp)
        place = int(np.searchsorted(self._sorted, np.bytes_(key.encode(errors="replace"))))
        near = self._sorted[max(place - 500, 0) : place + 500]
        if len(self) <= 5000:
            near = self._sorted
        pool = [self._text(raw) for raw in self._bytes[holds[:50]]]
        close = difflib.get_close_matches(key, pool, most, 0.0)
        close += [text for text in difflib.get_close_matches(key, map(self._text, near), most) if text not in close]
        return close[:most]

    def find(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """See `IdTable.find`."""
        encoded = encode_ids(keys)
        wanted = np.array(encoded, dtype=f"S{self._width}")
        places = np.searchsorted(self._sorted, wanted)
        places[places == len(self)] = 0
        known = self._sorted[places] == wanted if len(self) else np.zeros(len(encoded), bool)
        # A longer id was cut to a stored one's length, and a NUL at its end has vanished: neither is in the store.
        if max(map(len, encoded), default=0) > self._width or b"\0" in b"".join(encoded):
            known &= [len(raw) <= self._width and b"\0" not in raw for raw in encoded]
        if not all(encoded):  # holes have none
            known &= list(map(bool, encoded))
        rows = places if self._order is None else self._order[places] if len(self) else places
        return rows.astype(np.int64), known

    def _require_distinct(self, order: NDArray[np.intp]) -> None:
        """Refuse an id that two rows have: either of them could be meant. Holes, which have none, are alike."""
        twice = (self._sorted[1:] == self._sorted[:-1]) & (self._sorted[1:] != b"")
        if twice.any():
            place = int(np.argmax(twice))
            one, other = sorted(order[place : place + 2].tolist())
            text = self._text(self._sorted[place])[:200]
            raise DamagedError(f"{self._where}/ids: rows {one} and {other} have the same id, {text!r}")


def encode_ids(keys: Sequence[str]) -> list[bytes]:
    """Return ids as bytes; what cannot be written in UTF-8 becomes bytes that no id has."""
    try:
        return list(map(str.encode, keys))
    except UnicodeEncodeError:
        return [key.encode(errors="surrogatepass") for key in keys]


def pack_ids(ids: Sequence[str]) -> NDArray[np.uint8]:
    """Return ids as uint8 ``[N, L]``, L the longest id's bytes (at least 1)."""
    encoded = [key.encode() for key in ids]
    width = max(map(len, encoded), default=1) or 1
    return np.array(encoded, dtype=f"S{width}").reshape(-1, 1).view(np.uint8).reshape(len(encoded), width)
