"""Damages stores in every way that checking them must find, and tells what a reader then serves."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelstore import LabelMapReader, LabelStoreError
from labelstore.encodings import committed_arrays
from labelstore.pipelines.files import commit_record, encode_file
from labelstore.pipelines.store import ShardWriter
from labelstore.storage import open_source
from labelstore.storage.metadata import commits_spec
from labelstore.storage.origin import origin_of

BOXES = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.5, 0.9))


@dataclass(frozen=True)
class Damage:
    """A file and what becomes of it; None: it is deleted."""

    key: str
    data: bytes | None

    def do(self, store: Path) -> None:
        (store / self.key).write_bytes(self.data) if self.data is not None else (store / self.key).unlink()


def flip(file: Path, place: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << bit
    file.write_bytes(bytes(data))


def keys_of(store: Path) -> list[str]:
    """All files of a store, in order."""
    return sorted(file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file())


def flips(store: Path, count: int, rng: random.Random) -> list[Damage]:
    """Single bits turned over, in every file about as often."""
    found = []
    for number, key in enumerate(_evenly(store, count, rng)):
        data = bytearray((store / key).read_bytes())
        data[rng.randrange(len(data))] ^= 1 << number % 8
        found.append(Damage(key, bytes(data)))
    return found


def truncations(store: Path, count: int, rng: random.Random) -> list[Damage]:
    """Files cut short, in turn to nothing and to some length."""
    found = []
    for number, key in enumerate(_evenly(store, count, rng)):
        data = (store / key).read_bytes()
        found.append(Damage(key, data[: rng.randrange(len(data)) if number % 3 else 0]))
    return found


def deletions(store: Path, count: int, rng: random.Random) -> list[Damage]:
    """Files deleted, in turn all that there are."""
    return [Damage(key, None) for key in _evenly(store, count, rng)]


def _evenly(store: Path, count: int, rng: random.Random) -> Iterator[str]:
    """So many of the store's files, each as often as the others."""
    keys = keys_of(store)
    rng.shuffle(keys)
    return itertools.islice(itertools.cycle(keys), count)


def labels_of(store: Path) -> np.ndarray:
    """All soft labels of a store, float32 ``[rows, boxes, C]``; NaN for rows that are refused with a `LabelStoreError`."""
    reader = LabelMapReader(store, compiled=False)
    labels = np.full((len(reader), len(BOXES), reader.num_classes), np.nan, np.float32)
    for row in range(len(reader)):
        try:
            labels[row] = reader.pool([row] * len(BOXES), BOXES)
        except LabelStoreError:
            continue
    return labels


def served(store: Path, truth: np.ndarray) -> list[int] | None:
    """Return the rows that a reader still serves, none of them wrong; None if it does not open the store."""
    try:
        labels = labels_of(store)
    except LabelStoreError:
        return None
    rows = [row for row in range(len(labels)) if not np.isnan(labels[row]).any()]
    np.testing.assert_array_equal(labels[rows], truth[rows])
    return rows


def rows_of(store: Path, shard: int) -> dict[str, np.ndarray]:
    """A committed shard's arrays, as `ShardWriter.write` takes them."""
    source, info = open_source(store)
    rows = np.array(info.shard_rows(shard))
    source.status(rows)
    found: dict[str, np.ndarray] = {}
    specs = [spec for spec in committed_arrays(info) if spec.by_row]
    source.each_part(specs, rows, 1, lambda _, part: found.update({name: values.copy() for name, values in part.items()}))
    others = [spec for spec in committed_arrays(info) if not spec.by_row]
    return found | {spec.name: source.index_rows(spec, shard).copy() for spec in others}


def rewrite(store: Path, shard: int, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change a shard's values, under checksums that fit them."""
    arrays = rows_of(store, shard)
    change(arrays)
    ShardWriter(str(store)).write(shard, arrays)


def reseal(store: Path, shard: int, files: Mapping[str, bytes]) -> None:
    """Put files of a shard into their places by array, and a commit that fits them."""
    _, info = open_source(store)
    specs, record = committed_arrays(info), []
    for spec in specs:
        path = store / spec.name / spec.file_name(shard)
        if spec.name in files:
            path.write_bytes(files[spec.name])
        record.append(commit_record(path.read_bytes()))
    commits = commits_spec(info)
    if info.store_id is not None:
        record.append(tuple(origin_of(info, ShardWriter(str(store)).ids_seal(shard))))
    data = encode_file(commits, np.array([record], np.uint64), 1)
    (store / commits.name / commits.file_name(shard)).write_bytes(data)


def spec_of(store: Path, name: str) -> Any:
    """An array of a store by its name."""
    return next(spec for spec in committed_arrays(open_source(store)[1]) if spec.name == name)


def die(*_: Any) -> None:
    """End the process that calls this, as the kernel does where memory is short."""
    os._exit(9)
