"""Looks at all of a folder: to say that two stores are the same, or that nothing was touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelstore.schema import ATTRIBUTE
from labelstore.storage.seals import SEALS

HALF = "0123456789abcdef" * 2 + ".partial"
"""How the name of a file ends that a killed writer leaves."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path below the folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and time of change: what writing the same bytes again would alter."""
    found = {file.relative_to(folder).as_posix(): file.stat() for file in folder.rglob("*") if file.is_file()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def store_contents(store: Path) -> dict[str, bytes]:
    """`contents` of a store, without the time at which it was made and its id."""
    found = without_ids(contents(store))
    for name in ("zarr.json", "commits/zarr.json"):  # the latter has a copy
        root = json.loads(found[name])
        del root["attributes"][ATTRIBUTE]["created"]
        del root["attributes"][ATTRIBUTE]["store_id"]
        del root["attributes"][SEALS]["attributes"]
        found[name] = json.dumps(root).encode()
    return found


def without_ids(files: dict[str, bytes]) -> dict[str, bytes]:
    """A store's files by key, with commits that do not say of which store they are: stores of the same maps are then the same.

    What a commit says of its files, and of the ids of its rows, is left.
    """
    return {key: _without_id(data) if key.startswith("commits/c.") else data for key, data in files.items()}


def _without_id(commit: bytes) -> bytes:
    """The last row's first two numbers are the store's id; a checksum of all is at the end."""
    return commit[:-36] + commit[-20:-4]


def edit_attributes(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a store says of itself, as the store of somebody who keeps no checksums of it."""
    root = json.loads((store / "zarr.json").read_text())
    change(root["attributes"][ATTRIBUTE])
    root["attributes"].pop(SEALS, None)
    (store / "zarr.json").write_text(json.dumps(root))
    commits = json.loads((store / "commits" / "zarr.json").read_text())
    (store / "commits" / "zarr.json").write_text(json.dumps({**commits, "attributes": {}}))


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """The files whose stamps differ, those that came or went included."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
