"""`import arrays`: maps as plain arrays, dense or the K best classes of every location, into a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, MapsError, OptionError
from labelstore.ids import pack_ids
from labelstore.npz import Column
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.exchange.array_file import open_arrays, opened_arrays, texts
from labelstore.pipelines.exchange.exporting import require_whole
from labelstore.pipelines.exchange.listed import Found, as_logits, put_dense, put_found
from labelstore.pipelines.exchange.places import whole_place
from labelstore.pipelines.exchange.selection import read_ids
from labelstore.pipelines.exchange.told import Said, listed_choice, listed_classes, record_of, told_by
from labelstore.pipelines.exchange.transfer import Transfer, transfer
from labelstore.pipelines.new_store import MapsRecord, info_of
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.probe import spread
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.scores import dense_logits_of, settle_scores
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.sources.listing import folder_targets
from labelstore.pipelines.sources.spec import is_url
from labelstore.pipelines.summary import Summary
from labelstore.pipelines.writer import check_index
from labelstore.records import ImportRecord, ScoresRecord
from labelstore.schema import NO_CLASS, StoreInfo
from labelstore.units import DenseUnit, ListedUnit

_DENSE_AT_ONCE, _LISTED_AT_ONCE, _LOOKED_AT = 16, 256, 32
_AS_USUAL, _NOTHING = EncodingChoice(), Said()


@dataclass(frozen=True)
class ArrayRows:
    """A file of arrays, a map a row; a part is the first of a shard's rows. A `MapsSource`."""

    path: str
    skip_bad: bool = False
    scores: ScoresRecord | None = None

    def fill(self, rows: ShardRows, part: int) -> Iterator[int]:
        """See `MapsSource.fill`."""
        columns = opened_arrays(self.path)[0]
        step = _DENSE_AT_ONCE if "logits" in columns else _LISTED_AT_ONCE
        for start in range(0, len(rows), step):
            some = slice(part + start, part + min(start + step, len(rows)))
            names = [f"{self.path}: row {row} ({image_id!r})" for row, image_id in self._named(rows, start, some)]
            crc32 = self._read(columns["image_crc32"], some).tolist() if "image_crc32" in columns else None
            if "logits" in columns:
                logits, problems = dense_logits_of(self._read(columns["logits"], some), self.scores)
                put_dense(rows, start, np.ascontiguousarray(logits), names, self.skip_bad, crc32, problems)
            else:
                classes, scores = (self._read(columns[name], some) for name in ("classes", "scores"))
                found = [
                    as_logits(Found(name, *maps), self.scores, rows.info.num_classes)
                    for name, maps in zip(names, zip(classes, scores, strict=True), strict=True)
                ]
                put_found(rows, start, found, self.skip_bad, crc32)
            yield len(names)

    def _read(self, column: Column, some: slice) -> NDArray[Any]:
        try:
            return column[some]
        except (OSError, ValueError) as error:
            raise MapsError(f"{self.path}: {error}") from error

    def _named(self, rows: ShardRows, start: int, some: slice) -> Iterator[tuple[int, str]]:
        return zip(range(some.start, some.stop), rows.ids[start : start + some.stop - some.start], strict=True)


@dataclass(frozen=True)
class ArrayImport:
    """What a user says of such a file.

    Parameters
    ----------
    said
        Of the maps: what `export arrays` writes says all of it itself.
    ids
        A file with an image id a line; None: the file has them.
    encoding, top_k
        How maps are kept; of ``logits`` alone. What ``classes`` lists is kept as ``topk``.
    """

    path: str
    said: Said = _NOTHING
    ids: str | None = None
    encoding: EncodingChoice = _AS_USUAL
    top_k: int | None = None
    shard_size: int | None = None
    skip_bad: bool = False


def import_arrays(asked: ArrayImport, store: str, resources: Resources, observer: Observer) -> Summary:
    """Make a store of a file's arrays, or go on with it. Rows are as they are there.

    Raises
    ------
    OptionError, ImagesError
        Choices that do not go together, or with the arrays; ids that do not.
    MapsError
        Arrays that are none of maps; a row that cannot be kept, which is named.
    LabelStoreError
        As `transfer`.
    """
    observer.phase("looking at the arrays")
    path = whole_place(asked.path)
    if not is_url(path):
        require_whole(path)
    columns, attributes = open_arrays(path)
    told = told_by(path, attributes)
    count, record = _record(asked, columns, told)
    ids = _ids(asked, columns, count)
    targets, names = _targets(columns, ids, told)
    targets = check_index(ids, targets)
    packed = pack_ids(ids)
    exported = told is not None and asked.said.scores is None
    scores = ScoresRecord() if exported else _scores(asked, path, columns, record, observer)
    record = replace(record, target_names=names, imported=ImportRecord("arrays", path, scores=scores))
    info = info_of(record, count, packed.shape[1], asked.shard_size)

    def part(shard: int) -> int:
        return info.shard_rows(shard).start

    return transfer(Transfer(ArrayRows(path, asked.skip_bad, scores), info, packed, targets, part), store, resources, observer)


def _scores(
    asked: ArrayImport, path: str, columns: Mapping[str, Column], record: MapsRecord, observer: Observer
) -> ScoresRecord:
    """Find out what unit the scores are in, by maps from all over the file."""
    dense = "logits" in columns
    column = columns["logits" if dense else "scores"]
    test = DenseUnit() if dense else ListedUnit(record.num_classes)
    for row in spread(column.shape[0], _LOOKED_AT):
        some = slice(row, row + 1)
        try:
            if isinstance(test, DenseUnit):
                test.add(column[some])
            else:
                test.add(column[some], columns["classes"][some] != NO_CLASS)
        except (OSError, ValueError):
            continue  # said when the row's turn comes
    return settle_scores(asked.said.scores, test, f"{path}: {'logits' if dense else 'scores'}", observer)


def _record(asked: ArrayImport, columns: Mapping[str, Column], told: StoreInfo | None) -> tuple[int, MapsRecord]:
    """Return how many maps there are, and what is known of them."""
    dense = columns.get("logits")
    if (dense is not None) == ("classes" in columns and "scores" in columns):
        raise MapsError(
            f"{asked.path}: expected an array logits [N, C, H, W], or classes and scores [N, K, H, W], found "
            f"{', '.join(sorted(columns)) or 'none'}"
        )
    if dense is not None:
        shape = _shape(asked.path, "logits", dense)
        num_classes = shape[1]
        if asked.said.num_classes not in (None, num_classes):
            raise OptionError(f"--num-classes {asked.said.num_classes}: the logits are of {num_classes} classes")
        top_k, choice = asked.top_k or min(defaults.TOP_K, num_classes), asked.encoding
    else:
        shape, other = (_shape(asked.path, name, columns[name]) for name in ("classes", "scores"))
        if shape != other:
            raise MapsError(f"{asked.path}: classes {list(shape)} and scores {list(other)}: expected the same shape")
        if asked.top_k not in (None, shape[1]):
            raise OptionError(
                f"--top-k {asked.top_k}: goes with dense logits; the {shape[1]} best classes are kept as they are"
            )
        num_classes, choice = listed_classes(asked.said, told), listed_choice(asked.encoding, told)
        top_k = shape[1]
    return shape[0], record_of(asked.said, told, num_classes, (shape[2], shape[3]), top_k, choice)


def _shape(path: str, name: str, column: Column) -> tuple[int, int, int, int]:
    if len(column.shape) != 4 or not all(column.shape) or column.dtype.kind not in "iuf":
        raise MapsError(f"{path}: {name}: expected numbers [N, ., H, W], got {column.dtype} {list(column.shape)}")
    count, depth, height, width = column.shape
    return count, depth, height, width


def _ids(asked: ArrayImport, columns: Mapping[str, Column], count: int) -> Sequence[str]:
    if asked.ids is None and "ids" not in columns:
        raise OptionError("--ids FILE: needed, because the arrays hold none: an image id a line, in their order")
    found = read_ids(asked.ids) if asked.ids is not None else list(texts(columns["ids"]))
    if len(found) != count:
        raise ImagesError(f"{asked.ids or asked.path}: expected {count} image ids, one for each map, got {len(found)}")
    return found


def _targets(
    columns: Mapping[str, Column], ids: Sequence[str], told: StoreInfo | None
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    if "targets" not in columns:
        return folder_targets(ids)
    return columns["targets"][:], None if told is None else told.target_names
