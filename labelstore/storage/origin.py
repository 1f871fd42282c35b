"""What ties a commit to its store, and to the images that its rows were made for: the last row of a commit."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from labelstore.schema import StoreInfo

_HALF = 64


def ids_seal(ids: NDArray[np.uint8]) -> int:
    """Return the crc32c of a shard's ids, uint8 ``[n, L]``, each zero-padded to the longest of them, whatever L is."""
    used = np.flatnonzero(ids.any(axis=0))
    width = int(used[-1]) + 1 if len(used) else 0
    checksum: int = google_crc32c.value(np.ascontiguousarray(ids[:, :width]).tobytes())
    return checksum


def origin_of(info: StoreInfo, seal: int) -> list[int]:
    """Return a commit's last row: the store's id, its upper half first, the seal of the rows' ids, and 0.

    Only for a store that has an id.
    """
    number = int(info.store_id or "", 16)
    return [number >> _HALF, number & (1 << _HALF) - 1, seal, 0]


def split_commit(commit: NDArray[np.uint64], info: StoreInfo) -> tuple[NDArray[np.uint64] | None, list[int]]:
    """Return what a commit keeps of the shard's files, ``[files, 4]``, and its last row: empty in a store without an id.

    None instead of the files where there is no commit.
    """
    if not commit.any():
        return None, []
    return (commit, []) if info.store_id is None else (commit[:-1], commit[-1].tolist())


def origin_problem(origin: list[int], info: StoreInfo, seal: int | None) -> str:
    """Say why a commit with such a last row does not count in a store; '' where it does.

    Parameters
    ----------
    seal
        Of the rows' ids; None where they cannot be read.
    """
    if not origin:
        return ""
    expected: list[Any] = origin_of(info, origin[2] if seal is None else seal)
    if origin[:2] != expected[:2]:
        return f"a commit of another store: expected id {info.store_id}, found {(origin[0] << _HALF) + origin[1]:032x}"
    return "" if origin == expected else "a commit for other images than those whose ids are here"
