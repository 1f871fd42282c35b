"""`import webdataset`: tar files of maps, as `export webdataset` writes them, into a store."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, MapsError
from labelstore.ids import pack_ids
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.exchange.exporting import require_whole
from labelstore.pipelines.exchange.listed import Found, as_logits, put_found
from labelstore.pipelines.exchange.places import whole_place
from labelstore.pipelines.exchange.told import Said, listed_choice, listed_classes, record_of, told_by
from labelstore.pipelines.exchange.transfer import Transfer, transfer
from labelstore.pipelines.new_store import MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.probe import spread
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.scores import settle_scores
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.sources.bytesio import read_all, read_part
from labelstore.pipelines.sources.places import PartPlace
from labelstore.pipelines.sources.tar_labels import sample_key
from labelstore.pipelines.summary import Summary
from labelstore.pipelines.writer import check_index
from labelstore.records import ImportRecord, ScoresRecord
from labelstore.regular_file import open_regular
from labelstore.schema import ATTRIBUTE, NO_CLASS
from labelstore.units import ListedUnit

MEMBERS = ("classes.npy", "scores.npy", "json")
_AT_ONCE, _LONGEST_TEXT, _LOOKED_AT = 256, 1 << 16, 64
Span = tuple[int, int]
"""Where a member's bytes begin, and how many they are."""


@dataclass(frozen=True)
class TarMap:
    """Where a map is: the number of its file, its two members; and what is known of its image's content."""

    file: int
    classes: Span
    scores: Span
    image_crc32: int


@dataclass(frozen=True)
class TarMaps:
    """Tar files of maps; a part are the `TarMap` of a shard's rows. A `MapsSource`."""

    files: tuple[str, ...]
    skip_bad: bool = False
    scores: ScoresRecord | None = None

    def fill(self, rows: ShardRows, part: Sequence[TarMap]) -> Iterator[int]:
        """See `MapsSource.fill`."""
        shape = (rows.info.top_k, *rows.info.map_size)
        for start in range(0, len(part), _AT_ONCE):
            some, ids = part[start : start + _AT_ONCE], rows.ids[start : start + _AT_ONCE]
            found = [
                as_logits(self._read(one, image_id, shape), self.scores, rows.info.num_classes)
                for one, image_id in zip(some, ids, strict=True)
            ]
            put_found(rows, start, found, self.skip_bad, [one.image_crc32 for one in some])
            yield len(some)

    def _read(self, one: TarMap, image_id: str, shape: tuple[int, ...]) -> Found:
        file = self.files[one.file]
        where = f"{file}: {image_id!r}"
        try:
            classes, scores = (read_array(file, span) for span in (one.classes, one.scores))
        except MapsError as error:
            return Found(where, problem=str(error))
        if classes.shape != shape or scores.shape != shape:
            shapes = f"{list(classes.shape)} and {list(scores.shape)}"
            return Found(where, problem=f"expected classes and scores {list(shape)} as the first map has, got {shapes}")
        if classes.dtype.kind not in "iuf" or scores.dtype.kind not in "iuf":
            return Found(where, problem=f"expected numbers, got {classes.dtype} and {scores.dtype}")
        return Found(where, classes, scores)


@dataclass(frozen=True)
class TarImport:
    """What a user says of a folder of such files; of the maps, where its ``labelstore.json`` does not."""

    folder: str
    said: Said = field(default_factory=Said)
    shard_size: int | None = None
    skip_bad: bool = False


def import_tars(asked: TarImport, store: str, resources: Resources, observer: Observer) -> Summary:
    """Make a store of a folder's tar files, or go on with it. Rows are in the order of samples.

    Raises
    ------
    ImagesError, MapsError
        No such files, or a sample that has no map; it is named.
    LabelStoreError
        As `transfer`.
    """
    observer.phase("looking for maps")
    root = whole_place(asked.folder)
    require_whole(root)
    files = tuple(sorted(map(str, Path(root).glob("*.tar"))))
    if not files:
        raise ImagesError(f"{asked.folder}: expected tar files in this folder, found none")
    ids, targets, maps = _samples(files)
    labels = check_index(ids, targets)
    told = told_by(root, _attributes(Path(root, f"{ATTRIBUTE}.json")))
    if told is not None and told.num_rows != len(ids):
        raise ImagesError(f"{asked.folder}: expected {told.num_rows} samples as {ATTRIBUTE}.json says, found {len(ids)}")
    first = read_array(files[maps[0].file], maps[0].classes)
    if first.ndim != 3 or not all(first.shape):
        raise MapsError(f"{files[maps[0].file]}: {ids[0]!r}: expected classes [K, H, W], got {list(first.shape)}")
    size, choice = (first.shape[1], first.shape[2]), listed_choice(EncodingChoice(), told)
    record = record_of(asked.said, told, listed_classes(asked.said, told), size, first.shape[0], choice)
    packed = pack_ids(ids)
    exported = told is not None and asked.said.scores is None
    scores = ScoresRecord() if exported else _scores(asked, files, maps, record, observer)
    imported = ImportRecord("webdataset", root, scores=scores)
    info = info_of(replace(record, imported=imported), len(ids), packed.shape[1], asked.shard_size)

    def part(shard: int) -> tuple[TarMap, ...]:
        rows = info.shard_rows(shard)
        return tuple(maps[rows.start : rows.stop])

    sample = [PartPlace(files[maps[0].file], ids[0], *maps[0].classes)]
    source = TarMaps(files, asked.skip_bad, scores)
    return transfer(Transfer(source, info, packed, labels, part, sample), store, resources, observer)


def _scores(
    asked: TarImport, files: Sequence[str], maps: Sequence[TarMap], record: MapsRecord, observer: Observer
) -> ScoresRecord:
    """Find out what unit the scores are in, by maps from all over the files."""
    test = ListedUnit(record.num_classes)
    for row in spread(len(maps), _LOOKED_AT):
        with contextlib.suppress(MapsError):
            classes, scores = (read_array(files[maps[row].file], span) for span in (maps[row].classes, maps[row].scores))
            if classes.shape == scores.shape and scores.ndim == 3 and scores.dtype.kind in "iuf":
                test.add(scores[None], classes[None] != NO_CLASS)
    return settle_scores(asked.said.scores, test, f"{asked.folder}: scores", observer)


def read_array(file: str, span: Span) -> NDArray[Any]:
    """Return an array out of a part of a file.

    Raises
    ------
    MapsError
        There is none; says why without naming the file.
    """
    try:
        found: NDArray[Any] = np.lib.format.read_array(io.BytesIO(read_part(file, *span)), allow_pickle=False)
    except OSError as error:
        raise MapsError(f"cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, MemoryError) as error:
        raise MapsError(f"expected an array as NumPy writes it (.npy): {error}") from error
    return found


def _samples(files: Sequence[str]) -> tuple[list[str], list[int], list[TarMap]]:
    """Return image ids, labels and places of all samples."""
    ids, targets, maps = [], [], []
    for number, file in enumerate(files):
        for key, spans, text in _members(file):
            said = _said(file, key, text)
            ids.append(said["id"])
            targets.append(said["target"])
            maps.append(TarMap(number, spans["classes.npy"], spans["scores.npy"], said["image_crc32"]))
    return ids, targets, maps


def _members(file: str) -> Iterator[tuple[str, dict[str, Span], bytes]]:
    """Yield of each sample its key, where its members are, and what its JSON says."""
    try:
        with open_regular(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            kept: Any = archive
            key, spans, text = "", dict[str, Span](), b""
            for member in archive:
                kept.members = []  # millions of them would be kept
                here = sample_key(member.name)
                if here != key and spans:
                    yield _whole(file, key, spans, text)
                    spans, text = {}, b""
                key, ending = here, member.name[len(here) + 1 :]
                if ending in MEMBERS:
                    spans[ending] = member.offset_data, member.size
                if ending == "json" and member.size <= _LONGEST_TEXT:
                    content = archive.extractfile(member)
                    text = b"" if content is None else content.read()
            if spans:
                yield _whole(file, key, spans, text)
    except OSError as error:
        raise ImagesError(f"{file}: cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise ImagesError(f"{file}: no whole tar file: {error}") from error


def _whole(file: str, key: str, spans: dict[str, Span], text: bytes) -> tuple[str, dict[str, Span], bytes]:
    lacking = [name for name in MEMBERS if name not in spans]
    if lacking:
        raise MapsError(f"{file}: {key}: expected {', '.join(f'{key}.{name}' for name in MEMBERS)}, found no {lacking[0]}")
    return key, spans, text


def _said(file: str, key: str, text: bytes) -> dict[str, Any]:
    try:
        said = {"target": -1, "image_crc32": 0, **json.loads(text)}
    except (ValueError, TypeError):  # no JSON, or no object
        said = {}
    if not isinstance(said.get("id"), str):
        raise MapsError(f"{file}: {key}.json: expected an object with an 'id', got {text[:60]!r}")
    for name, least, most in (("target", -1, np.iinfo(np.int32).max), ("image_crc32", 0, np.iinfo(np.uint32).max)):
        if type(said[name]) is not int or not least <= said[name] <= most:
            raise MapsError(f"{file}: {key}.json: {name}: expected an integer from {least} to {most}, got {said[name]!r}")
    return said


def _attributes(file: Path) -> dict[str, Any]:
    """Return what the export has written of its maps; nothing if it is not there."""
    try:
        found = json.loads(read_all(str(file)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise MapsError(f"{file}: expected JSON, as export webdataset writes it: {error}") from error
    if not isinstance(found, dict):
        raise MapsError(f"{file}: expected an object, got {type(found).__name__}")
    return found
