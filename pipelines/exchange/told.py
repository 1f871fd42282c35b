"""What files that were exported out of a store say of their maps, and what a user says instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labelstore.errors import FormatError, MapsError, OptionError
from labelstore.pipelines import defaults
from labelstore.pipelines.choice import EncodingChoice
from labelstore.pipelines.class_file import read_classes
from labelstore.pipelines.new_store import NOT_KNOWN, MapsRecord
from labelstore.schema import StoreInfo


@dataclass(frozen=True)
class Said:
    """What a user says of maps. None: as the files have it, else the default.

    ``num_classes`` is C; ``classes`` a file with their names; ``scores`` says ``logits`` or ``probabilities``.
    """

    num_classes: int | None = None
    classes: str | None = None
    annotator: str | None = None
    exif: str | None = None
    scores: str | None = None


def told_by(path: str, attributes: Mapping[str, Any]) -> StoreInfo | None:
    """Return what a file says of its maps, as a store's attributes; None if it says nothing.

    Raises
    ------
    MapsError
    """
    if not attributes:
        return None
    try:
        return StoreInfo.from_attributes(attributes, path)
    except FormatError as error:
        raise MapsError(str(error)) from error


def record_of(
    said: Said,
    told: StoreInfo | None,
    num_classes: int,
    map_size: tuple[int, int],
    top_k: int,
    choice: EncodingChoice,
) -> MapsRecord:
    """Return what is known of maps.

    Raises
    ------
    OptionError
        A file of classes that cannot be read, or is of others.
    """
    if num_classes == 1 and told is None:
        raise OptionError("expected at least 2 classes, got 1, whose probability is always 1")
    names, class_ids = (None, None) if told is None else (told.class_names, told.class_ids)
    if said.classes is not None:
        names, class_ids = read_classes(said.classes, num_classes)
    return MapsRecord(
        num_classes,
        map_size,
        top_k,
        choice,
        annotator=said.annotator or (NOT_KNOWN if told is None else told.annotator),
        class_names=names,
        class_ids=class_ids,
        target_names=None if told is None else told.target_names,
        images_root=None if told is None else told.images_root,
        exif=said.exif or (defaults.EXIF if told is None else told.exif),
    )


def listed_classes(said: Said, told: StoreInfo | None) -> int:
    """Return C of maps that list their best classes.

    Raises
    ------
    OptionError
        Nobody says it.
    """
    found = said.num_classes or (None if told is None else told.num_classes)
    if found is None:
        raise OptionError("--num-classes: needed, because the K best classes do not say how many there are")
    return found


def listed_choice(choice: EncodingChoice, told: StoreInfo | None) -> EncodingChoice:
    """Return how maps that list their best classes are kept: as they are.

    Raises
    ------
    OptionError
        Otherwise.
    """
    if choice.encoding not in (None, "topk"):
        raise OptionError("--encoding, --top-k: go with dense logits; the K best classes are kept as they are (topk)")
    return replace(choice, encoding="topk", baseline=choice.baseline or ("zero" if told is None else told.baseline))
