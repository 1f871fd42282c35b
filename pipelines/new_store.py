"""What a new store says of maps that come from elsewhere: another program, files, another store."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from labelstore.encodings import find_encoding
from labelstore.errors import OptionError
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice, baseline, check_choice, spectral_shape
from labelstore.pipelines.plan import shard_size
from labelstore.pipelines.versions import recorded_versions
from labelstore.records import AnnotatorRecord, ImportRecord
from labelstore.schema import StoreInfo

NOT_KNOWN = "not known"
TOPK_AS_IT_IS = EncodingChoice("topk", baseline="zero")
"""For maps that list classes with their own logits, as in the paper."""


@dataclass(frozen=True)
class MapsRecord:
    """What is known of maps before they are written.

    ``encoding`` is how they are to be kept; ``annotator`` what made them, by name or as another store records it; ``exif``
    whether photographs were turned upright first.
    """

    num_classes: int
    map_size: tuple[int, int]
    top_k: int = defaults.TOP_K
    encoding: EncodingChoice = TOPK_AS_IT_IS
    imported: ImportRecord | None = None
    annotator: str | AnnotatorRecord = NOT_KNOWN
    class_names: tuple[str, ...] | None = None
    class_ids: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    images_root: str | None = None
    exif: str = defaults.EXIF


def info_of(record: MapsRecord, num_rows: int, id_bytes: int, rows_a_shard: int | None = None) -> StoreInfo:
    """Return the attributes of a new store of such maps.

    Raises
    ------
    OptionError
        Choices that do not go together, or more than there is.
    """
    check_choice(record.encoding)
    if record.top_k > record.num_classes:
        raise OptionError(f"--top-k {record.top_k}: expected at most the {record.num_classes} classes that there are")
    return StoreInfo(
        num_rows=num_rows,
        num_classes=record.num_classes,
        top_k=record.top_k,
        map_size=record.map_size,
        shard_size=rows_a_shard or shard_size(num_rows),
        id_bytes=id_bytes,
        annotator=record.annotator if isinstance(record.annotator, AnnotatorRecord) else named_annotator(record.annotator),
        encoding=record.encoding.name,
        spectral=spectral_shape(record.encoding, record.num_classes, record.map_size),
        baseline=baseline(record.encoding),
        exif=record.exif,
        class_names=record.class_names,
        class_ids=record.class_ids,
        target_names=record.target_names,
        images_root=record.images_root,
        versions=dict(recorded_versions()),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe=find_encoding(record.encoding.name, "new store").recipe,
        imported=record.imported,
    )


def named_annotator(name: str) -> AnnotatorRecord:
    """Return what is recorded of an annotator of which no more than a name is known."""
    return AnnotatorRecord(name, weights_sha256="", input_size=0, mean=(), std=(), interpolation="", precision="")
