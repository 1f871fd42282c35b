"""Format version 1: which arrays a store has, and what its attributes say. Pure data; docs/format.md in code."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from labelstore.attributes import Attributes
from labelstore.pixels import GREY16_RULES
from labelstore.records import (
    MAX_CLASSES,
    AnnotatorRecord,
    Extent,
    ImportRecord,
    LabelDistance,
    SpectralShape,
    parse_annotator,
    parse_distance,
    parse_extents,
    parse_imported,
    parse_spectral,
    strip_fields,
)

FORMAT_VERSION = 1
ATTRIBUTE = "labelstore"
UNFINISHED = "labelstore_unfinished"
NO_CLASS = 65535
"""What ``classes`` holds where there is no class; so a store has at most 65,535 classes, 0 to 65,534."""
ERROR_BYTES = 160
BASELINES = ("absent_mean", "absent_mass", "zero")
EXIF_RULES = ("ignore", "apply")
COMMIT_FIELDS = ("length", "head", "tail", "crc32c")
"""What a commit keeps of each file: its length in bytes, its first and last four bytes and the crc32c of all of it."""
MAX_CHUNK_BYTES = 1 << 28
"""What a file that is one chunk, ``shard_size`` rows, may decode to."""
MAX_MAP_VALUES = 1 << 23
"""Scores of a map: 512 classes of 128x128 locations."""
IDS_ARRAY = re.compile(r"ids(_[1-9][0-9]{0,5})?")
STORE_ID = re.compile(r"[0-9a-f]{32}")


class Status(IntEnum):
    """What a row holds."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    HOLE = 3


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store, ``[N, *row_shape]``.

    Parameters
    ----------
    by_row
        True: a shard is one file of ``shard_size`` chunks, a row each (sharding codec). False: a chunk is
        ``shard_size`` rows.
    compressed
        Whether chunks are zstd frames; else a chunk is its row's bytes and their crc32c (with ``by_row``).
    committed
        Whether the array's files are written by the shard's task and sealed by its commit; the others, which are written when
        the store is created or extended, end in a crc32c of their own.
    resident
        Whether a reader keeps the rows of shards that it has opened in memory: small, and needed with every map.
    """

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    fill: int | float
    by_row: bool = False
    committed: bool = True
    resident: bool = False
    compressed: bool = True
    padding: int | None = None
    """What fills the rows that a last shard does not have; ``fill`` if None."""
    dims: tuple[str, ...] | None = None
    """The dimensions' names, for libraries that go by them (xarray); readers of ours do not."""

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype, little-endian as it lies on disk."""
        return np.dtype(self.dtype).newbyteorder("<")

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row, decoded."""
        return math.prod(self.row_shape) * self.numpy_dtype.itemsize

    def file_name(self, shard: int) -> str:
        """The file of one shard below the array's folder: ``c.<shard>.0.0...``."""
        return f"c.{shard}" + ".0" * len(self.row_shape)


@dataclass(frozen=True)
class StoreInfo:
    """The attributes of a store.

    ``top_k`` is K of the maps that are read; ``map_size`` is ``(H, W)``; ``created`` is UTC in ISO 8601; ``target_names`` are
    the folders' names where folders are labels; ``images_root`` is where the images lay when the store was made; ``decoder`` is
    what made pixels of them. ``extents`` are empty for a store that was made in one go; else its rows by the runs that added
    them, and what lies between two of them are holes. ``ids_array`` is the array that holds the ids. ``imported`` says where
    maps come from that were not annotated. ``store_id`` tells stores apart, whatever lies at the same place before or after;
    None for a store that was made before there were any. ``image_sizes``: whether it has the array `IMAGE_SIZE`.
    """

    num_rows: int
    num_classes: int
    top_k: int
    map_size: tuple[int, int]
    shard_size: int
    id_bytes: int
    annotator: AnnotatorRecord
    encoding: str = "topk"
    spectral: SpectralShape | None = None
    baseline: str = "absent_mean"
    exif: str = "ignore"
    grey16: str = "clip"
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    class_ids: tuple[str, ...] | None = field(default=None, repr=False)
    target_names: tuple[str, ...] | None = field(default=None, repr=False)
    images_root: str | None = None
    decoder: str = "pillow"
    distance: LabelDistance | None = None
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)
    created: str = ""
    recipe: str = field(default="", repr=False)
    extents: tuple[Extent, ...] = ()
    ids_array: str = "ids"
    imported: ImportRecord | None = None
    store_id: str | None = None
    image_sizes: bool = False

    @property
    def identity(self) -> tuple[str | None, str]:
        """What tells this store from others at the same place; of one without an id, when it was made."""
        return self.store_id, self.created

    @property
    def replaced_ids(self) -> str | None:
        """The array that ``ids_array`` has replaced, which stays for readers that were opened before; None if there is none."""
        number = int(self.ids_array.removeprefix("ids_")) if self.ids_array != "ids" else 0
        return None if number == 0 else f"ids_{number - 1}" if number > 1 else "ids"

    def __post_init__(self) -> None:
        strip_fields(self, "images_root")

    @property
    def num_shards(self) -> int:
        """Shards of ``shard_size`` rows; the last of an extent may be shorter."""
        return -(-self.num_rows // self.shard_size)

    @property
    def all_extents(self) -> tuple[Extent, ...]:
        """The rows that images have, in runs."""
        return self.extents or (Extent(0, self.num_rows, self.images_root),)

    @property
    def num_images(self) -> int:
        """Rows without the holes."""
        return sum(extent.stop - extent.start for extent in self.all_extents)

    @property
    def holes(self) -> list[range]:
        """Rows that belong to no image: behind an extent, up to the end of its last shard."""
        ends = zip(self.all_extents, self.all_extents[1:], strict=False)
        return [range(one.stop, other.start) for one, other in ends if one.stop < other.start]

    def extent_of(self, row: int) -> Extent:
        """The extent that a row's shard belongs to."""
        found = self.all_extents
        return found[max(bisect_right(found, row, key=lambda extent: extent.start) - 1, 0)]

    def shard_rows(self, shard: int) -> range:
        """Rows of one shard, without holes."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.extent_of(start).stop))

    def to_attributes(self) -> dict[str, Any]:
        """Return the object that goes into the group's attributes, under ``labelstore``."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_attributes(cls, attributes: object, where: str) -> StoreInfo:
        """Check what a store says of itself; the version first.

        Raises
        ------
        FormatError
            With the key, what was expected, what was found, and ``where``.
        """
        take = Attributes(attributes, where, f"{ATTRIBUTE}.")
        _require_version(take)
        names, ids, targets = (take.strings(key) for key in ("class_names", "class_ids", "target_names"))
        encoding, map_size = take.text("encoding"), take.size("map_size")
        info = cls(
            num_rows=take.whole("num_rows", 0, 2**48),
            num_classes=take.whole("num_classes", 1, MAX_CLASSES),
            top_k=take.whole("top_k", 1, MAX_CLASSES),
            map_size=map_size,
            shard_size=take.whole("shard_size", 1, 2**24),
            id_bytes=take.whole("id_bytes", 1, 65536),
            annotator=parse_annotator(take.nested("annotator")),
            encoding=encoding,
            spectral=parse_spectral(take.nested("spectral"), map_size) if encoding == "spectral" else None,
            baseline=take.one_of("baseline", BASELINES),
            exif=take.one_of("exif", EXIF_RULES),
            grey16=take.one_of("grey16", GREY16_RULES) if "grey16" in take.values else "clip",
            class_names=names,
            class_ids=ids,
            target_names=targets,
            images_root=take.text("images_root", optional=True),
            decoder=take.text("decoder", optional=True) or "pillow",
            distance=parse_distance(take),
            versions={str(key): str(value) for key, value in take.mapping("versions").items()},
            created=take.text("created"),
            recipe=take.text("recipe"),
            extents=parse_extents(take),
            ids_array=take.text("ids_array", optional=True) or "ids",
            imported=parse_imported(take),
            store_id=take.text("store_id", optional=True),
            image_sizes=take.flag("image_sizes"),
        )
        _check_sizes(take, info)
        _check_extents(take, info)
        if not IDS_ARRAY.fullmatch(info.ids_array):
            raise take.wrong("ids_array", "'ids' or 'ids_' and a number", repr(info.ids_array))
        if info.store_id is not None and not STORE_ID.fullmatch(info.store_id):
            raise take.wrong("store_id", "32 hexadecimal digits", repr(info.store_id))
        for key, value in (("class_names", names), ("class_ids", ids)):
            if value is not None and len(value) != info.num_classes:
                raise take.wrong(key, f"{info.num_classes} entries, one a class", f"{len(value)}")
        return info


COMMON_ARRAYS = (
    ArraySpec("status", "uint8", (), Status.PENDING, resident=True, padding=Status.HOLE, dims=("row",)),
    ArraySpec("errors", "uint8", (ERROR_BYTES,), 0, dims=("row", "error_byte")),
    ArraySpec("image_crc32", "uint32", (), 0, dims=("row",)),
)
"""Written by each shard's task, whatever the encoding."""
IMAGE_SIZE = ArraySpec("image_size", "uint32", (2,), 0, dims=("row", "width_height"))
"""Written likewise in stores with `StoreInfo.image_sizes`: each image's width and height in pixels, both 0 where not known."""
MAX_IMAGE_SIDE = 65535
"""Pixels of an image's width, or height: JPEG's limit."""


def index_arrays(info: StoreInfo) -> tuple[ArraySpec, ...]:
    """Return the arrays that are written when a store is created, and when it is extended."""
    return (
        ArraySpec(info.ids_array, "uint8", (info.id_bytes,), 0, committed=False, dims=("row", f"{info.ids_array}_byte")),
        ArraySpec("targets", "int32", (), -1, committed=False, dims=("row",)),
    )


def _check_sizes(take: Attributes, info: StoreInfo) -> None:
    """Bound what a row, and a shard's rows of an array, decode to: a few bytes can be a frame of very many."""
    (height, width), widest = info.map_size, max(info.id_bytes, ERROR_BYTES)
    if info.shard_size * widest > MAX_CHUNK_BYTES:
        raise take.wrong("shard_size", f"at most {MAX_CHUNK_BYTES // widest:,} rows of {widest} bytes", info.shard_size)
    listed = max(info.top_k, info.spectral.classes if info.spectral else 0)
    if listed * height * width > MAX_MAP_VALUES:
        raise take.wrong("map_size", f"at most {MAX_MAP_VALUES // listed:,} locations of {listed} classes", list(info.map_size))


def _check_extents(take: Attributes, info: StoreInfo) -> None:
    """Each starts with the first shard after the one before it; the last ends with the rows."""
    start = 0
    for extent in info.extents:
        if extent.start != start or extent.stop <= start:
            raise take.wrong("extents", f"one from row {start} on, not empty", f"{extent.start} to {extent.stop}")
        start = -(-extent.stop // info.shard_size) * info.shard_size
    if info.extents and info.extents[-1].stop != info.num_rows:
        raise take.wrong("extents", f"the last to end with row {info.num_rows}", str(info.extents[-1].stop))


def _require_version(take: Attributes) -> None:
    found = take.values.get("format_version")
    if found != FORMAT_VERSION:
        newer = isinstance(found, int) and not isinstance(found, bool) and found > FORMAT_VERSION
        hint = "; a newer labelstore made this store: pip install --upgrade labelstore" if newer else ""
        raise take.wrong("format_version", f"{FORMAT_VERSION}, which this version reads", f"{found!r}{hint}")
