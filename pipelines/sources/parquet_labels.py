"""The images' own labels in a column of Parquet files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labelstore.errors import ImagesError
from labelstore.pipelines.sources.listing import NO_LABEL, Targets, named_targets
from labelstore.pipelines.sources.spec import NO_LABELS, ImagesSpec

_LABEL = "label"
_LIKE_LABELS = ("label", "class", "target", "categor")


@dataclass(frozen=True)
class FileLabels:
    """What one file says of its images' labels.

    Attributes
    ----------
    file, count
        Its location, and how many images it has.
    values
        A label an image in words or numbers, '' for none; None: the file has no such column.
    names
        What numbers stand for, where the `datasets` library has written it.
    others
        Columns that could be labels.
    """

    file: str
    count: int
    values: list[str] | None
    names: tuple[str, ...] | None
    others: tuple[str, ...]


def read_labels(file: str, parquet: Any, spec: ImagesSpec) -> FileLabels:
    """Read the labels of one file.

    Raises
    ------
    ImagesError
        The column is missing or of another type, or its numbers are more than its names.
    """
    schema, count, name = parquet.schema_arrow, parquet.metadata.num_rows, spec.label_column or _LABEL
    classes = _class_labels(schema)
    if spec.label_column == NO_LABELS or (spec.label_column is None and name not in schema.names):
        likely = [other for other in schema.names if other in classes or any(word in other.lower() for word in _LIKE_LABELS)]
        return FileLabels(file, count, None, None, tuple(likely) if spec.label_column is None else ())
    given = column_values(file, parquet, name, f"--label-column, which may be {NO_LABELS} for none")
    names = classes.get(name)
    if names is not None:
        given = [_numbered(file, name, value, names) for value in given]
    values = ["" if value is None else str(int(value) if isinstance(value, bool) else value) for value in given]
    return FileLabels(file, count, values, names, ())


def own_targets(files: Sequence[FileLabels]) -> tuple[Targets, tuple[str, ...]]:
    """Return the labels of all files' images, in their order, and notes for the user.

    Raises
    ------
    ImagesError
        Files whose numbers have other names.
    """
    given = [file for file in files if file.values is not None]
    for other in given:
        if other.names != given[0].names:
            raise ImagesError(
                f"{other.file}: other names of labels than {given[0].file}: annotate them into stores of their own, or without "
                f"labels: --label-column {NO_LABELS}"
            )
    targets, words = named_targets([label for file in files for label in file.values or [""] * file.count])
    names = given[0].names if given and given[0].names else words
    others = dict.fromkeys(name for file in files for name in file.others)
    notes = []
    if len(given) < len(files):
        lack = next(file for file in files if file.values is None)
        if given:
            notes.append(f"{len(files) - len(given)} of {len(files)} files have no column of labels, such as {lack.file}")
        elif others:
            notes.append(f"No labels are taken. Columns that could be: {', '.join(others)}: choose with --label-column")
    return (targets, names), tuple(notes)


def column_values(file: str, parquet: Any, name: str, option: str) -> list[Any]:
    """Return a column's texts or whole numbers, decoded where a dictionary keeps them; None where there is none.

    Raises
    ------
    ImagesError
        The column is missing, or of another type.
    """
    schema = parquet.schema_arrow
    if name not in schema.names:
        raise ImagesError(f"{file}: expected a column {name!r}, found {', '.join(schema.names)}; {option} names it")
    kind = schema.field(name).type
    if not _is_text_or_number(kind):
        raise ImagesError(f"{file}: column {name!r} has type {kind}, expected whole numbers or texts ({option})")
    values: list[Any] = parquet.read(columns=[name]).column(0).to_pylist()
    return values


def _is_text_or_number(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        return _is_text_or_number(kind.value_type)
    plain = kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)
    return bool(plain) or str(kind) in ("string", "large_string", "string_view")


def _class_labels(schema: Any) -> dict[str, tuple[str, ...]]:
    """The names of labels by column, where the `datasets` library has written them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {column: feature["names"] for column, feature in features.items() if _is_class_label(feature)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {column: tuple(map(str, names)) for column, names in found.items() if isinstance(names, list)}


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and "names" in feature and feature.get("_type", "ClassLabel") == "ClassLabel"


def _numbered(file: str, column: str, value: Any, names: tuple[str, ...]) -> int | None:
    """A value of a column with names as a number: it may be a name itself."""
    number = names.index(value) if value in names else value
    if number is None or (isinstance(number, int) and NO_LABEL <= number < len(names)):
        return number
    raise ImagesError(f"{file}: column {column!r}: expected 0..{len(names) - 1}, as it has {len(names)} names, got {value!r}")
