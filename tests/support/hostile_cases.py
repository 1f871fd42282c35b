"""Hostile stores by number: the same number gives the same store, so that what was found can be looked at again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import hostile_files
import hostile_identity
import hostile_metadata
import hostile_values
from hostile_stores import HostileStore

Change = Callable[[HostileStore, Random], str]
CHANGES: tuple[Change, ...] = (
    *hostile_metadata.CHANGES,
    *hostile_files.CHANGES,
    *hostile_values.CHANGES,
    *hostile_identity.CHANGES,
)
_SELF_SEALED = (*hostile_metadata.SELF_SEALED, *hostile_values.SELF_SEALED)
SEALINGS = ("none", "none", "commits", "metadata", "both", "both")


@dataclass(frozen=True)
class Case:
    """A hostile store, made of the store ``original``.

    ``honest``: some checksum is left that does not fit, if anything was altered. Whatever is served must be what the original
    serves. The others are whole as far as a reader can tell, and what they serve must only be well-formed.
    """

    number: int
    original: str
    store: Path
    changes: tuple[str, ...]
    honest: bool


def make_case(number: int, originals: Sequence[Path], folder: Path, changes: Sequence[Change] = CHANGES) -> Case:
    """Make hostile store number so-and-so below a folder, by some of the changes that there are."""
    rng = Random(number)
    original = rng.choice(originals)
    return changed(number, original, folder, rng.choices(changes, k=rng.choice((1, 1, 1, 1, 2, 3))), rng.choice(SEALINGS))


def changed(number: int, original: Path, folder: Path, changes: Sequence[Change], sealing: str = "none") -> Case:
    """Copy a store, change it, and put checksums right: none of them, those of ``commits``, of ``metadata``, or ``both``."""
    rng = Random(number)
    store = HostileStore(original, folder / f"{number}.zarr")
    said = [f"{change.__name__}: {_made(change, store, rng)}" for change in changes]
    if sealing in ("commits", "both"):
        store.seal_commits()
    if sealing in ("metadata", "both"):
        store.seal_metadata()
    honest = sealing == "none" and not set(changes) & set(_SELF_SEALED)
    return Case(number, original.name, store.path, (*said, f"sealed: {sealing}"), honest)


def _made(change: Change, store: HostileStore, rng: Random) -> str:
    try:
        return change(store, rng)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return f"not possible any more: {type(error).__name__}"  # a change before this one has left nothing to be changed
