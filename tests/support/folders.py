"""Looks at all of a folder: to say that two stores are the same, or that nothing was touched."""

from __future__ import annotations

import json
from pathlib import Path

from labelstore.schema import ATTRIBUTE


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path below the folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and time of change: what writing the same bytes again would alter."""
    found = {file.relative_to(folder).as_posix(): file.stat() for file in folder.rglob("*") if file.is_file()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def store_contents(store: Path) -> dict[str, bytes]:
    """`contents` of a store, without the time at which it was made."""
    found = contents(store)
    root = json.loads(found["zarr.json"])
    del root["attributes"][ATTRIBUTE]["created"]
    found["zarr.json"] = json.dumps(root).encode()
    return found


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """The files whose stamps differ, those that came or went included."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
