"""Finished stores with one damage at a time: found by `verify`, never served, mended by `repair` and `annotate`."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from damage import Damage, deletions, flips, labels_of, served, truncations
from folders import contents

from labelstore.errors import LabelStoreError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.verifying import verify_store

CHOICES = {
    "topk": Settings(model="toy_annotators:colours", encoding="topk", top_k=3),
    "spectral": Settings(
        model="toy_annotators:colours", encoding="spectral", top_k=3, classes_per_image=5, patterns=3, frequencies=4
    ),
}
KINDS: dict[str, Callable[[Path, int, random.Random], list[Damage]]] = {
    "bits flipped": flips,
    "files cut short": truncations,
    "files deleted": deletions,
}
_SERIAL = Resources(workers=0, device="cpu", threads=1, decode_threads=1, batch_size=4)


@dataclass
class Tried:
    """Damages by kind, and what is wrong. ``rows_refused`` are those that were not served for it, of stores that still opened;
    ``stores_refused`` are those that did not."""

    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    stores_refused: int = 0
    rows_refused: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)


class Finished:
    """A finished store, and what it serves."""

    def __init__(self, images: Path, folder: Path, encoding: str) -> None:
        self._images, self._choices, self._encoding = images, CHOICES[encoding], encoding
        self._original, self._copy = folder / f"{encoding}-whole.zarr", folder / f"{encoding}-damaged.zarr"
        annotate(images, str(self._original), self._choices, _SERIAL, Observer())
        shutil.copytree(self._original, self._copy)
        self._contents, self._truth = contents(self._original), labels_of(self._original)
        self._rows = int((~np.isnan(self._truth).any(axis=(1, 2))).sum())

    def damages(self, counts: dict[str, int], rng: random.Random) -> Iterator[tuple[str, Damage]]:
        for kind, count in counts.items():
            for damage in KINDS[kind](self._original, count, rng):
                if damage.data != self._contents[damage.key]:
                    yield kind, damage

    def try_damage(self, kind: str, damage: Damage, tried: Tried) -> None:
        """Damage the copy, look, and mend it."""
        where = f"{self._encoding}, {kind}, {damage.key}"
        tried.done[kind] += 1
        tried.files = max(tried.files, len(self._contents))
        damage.do(self._copy)
        try:
            tried.found[kind] += self._is_found(damage)
            rows = served(self._copy, self._truth)
            tried.stores_refused += rows is None
            tried.rows_refused += 0 if rows is None else self._rows - len(rows)
            repair_store(str(self._copy), 1, Observer(), agree=lambda _: True)
            annotate(self._images, str(self._copy), self._choices, _SERIAL, Observer())
        except (LabelStoreError, AssertionError) as error:
            tried.problems.append(f"{where}: {error}")
        if contents(self._copy) == self._contents:
            tried.mended[kind] += 1
        else:
            tried.problems.append(f"{where}: not as before")
            shutil.rmtree(self._copy)
            shutil.copytree(self._original, self._copy)

    def _is_found(self, damage: Damage) -> bool:
        """A file is named; the loss of a commit cannot be told from one that was never made: its rows are pending."""
        verified = verify_store(str(self._copy), 1, Observer())
        array, _, name = damage.key.rpartition("/")
        if array == "commits" and name != "zarr.json" and damage.data is None:
            return not verified.problems and verified.rows["pending"] > 0
        return damage.key in {problem.file for problem in verified.problems}


def try_all(images: Path, folder: Path, counts: dict[str, int], seed: int, tell: Callable[[str], None]) -> Tried:
    """Try so many damages of each kind, in a store of each encoding."""
    tried = Tried()
    for encoding in CHOICES:
        store = Finished(images, folder, encoding)
        for kind, damage in store.damages(counts, random.Random(f"{seed} {encoding}")):
            store.try_damage(kind, damage, tried)
            tell(f"{encoding}: {tried.done.total()} damages, {len(tried.problems)} problems")
    for kind, count in tried.done.items():
        if tried.found[kind] < count:
            tried.problems.append(f"{kind}: {tried.found[kind]} of {count} found")
    return tried
