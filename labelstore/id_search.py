"""Image ids that contain a text, found among a million in a twentieth of a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelstore.ids import IdTable

_FEW = 500
"""Hits of a block that are walked one by one; more of them are found by comparing all of its bytes."""


def rows_containing(ids: IdTable, text: str) -> NDArray[np.int64]:
    """Return the rows whose id contains a text, ascending; ASCII letters in either case. Nothing contains an empty text."""
    needle = text.encode(errors="surrogatepass").lower()
    if not needle or b"\0" in needle:
        return np.empty(0, np.int64)
    found = [first + _hits(block, needle) for first, block in ids.blocks()]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _hits(block: NDArray[np.bytes_], needle: bytes) -> NDArray[np.int64]:
    """Return the places in a block of the ids that contain the needle."""
    raw, width = block.tobytes().lower(), block.itemsize
    places = _walked(raw, needle) if raw.count(needle) <= _FEW else _compared(raw, needle)
    rows, starts = np.divmod(places, width)
    rows = rows[starts + len(needle) <= width]  # what reaches into the next id is no hit
    return rows[np.diff(rows, prepend=-1) > 0]


def _walked(raw: bytes, needle: bytes) -> NDArray[np.int64]:
    places = []
    place = raw.find(needle)
    while place >= 0:
        places.append(place)
        place = raw.find(needle, place + 1)
    return np.array(places, np.int64)


def _compared(raw: bytes, needle: bytes) -> NDArray[np.int64]:
    values, last = np.frombuffer(raw, np.uint8), len(raw) - len(needle) + 1
    same = np.ones(max(last, 0), np.bool_)
    for offset, value in enumerate(needle):
        same &= values[offset : offset + last] == value
    return np.flatnonzero(same).astype(np.int64)
