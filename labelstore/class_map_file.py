"""A file that says which class of the store is which class of a data set."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labelstore.errors import OptionError

FILES = (".json", ".csv", ".tsv")
_HEADER = ("label", "class")


def read_class_map(path: str | Path) -> dict[str, Any] | list[Any]:
    """Read a class map.

    Parameters
    ----------
    path
        JSON: an object from the data set's class to an id, name or number of the store's, to a list of them (their
        probabilities are added), or to null (it has none); or a list of numbers, one a target. CSV, TSV: a header
        ``label,class``, then a row for each pair; several rows of one label add up, an empty class is none.

    Raises
    ------
    OptionError
        It cannot be read, is something else, or says of one class twice what it is.
    """
    where = f"class map {path}"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{where}: expected UTF-8 text: {error.reason} at byte {error.start}") from error
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return _json(where, text)
    if suffix in FILES:
        return _table(where, text, "\t" if suffix == ".tsv" else ",")
    raise OptionError(f"{where}: expected a file that ends in {', '.join(FILES)}")


def _json(where: str, text: str) -> dict[str, Any] | list[Any]:
    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise OptionError(f"{where}: {name!r} stands there twice; several classes of one label are a list")
            found[name] = value
        return found

    try:
        found = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise OptionError(f"{where}: expected JSON: {error}") from error
    if not isinstance(found, dict | list) or not found:
        raise OptionError(f"{where}: expected an object from label to class, or a list of class numbers, got {text[:40]!r}")
    return found


def _table(where: str, text: str, delimiter: str) -> dict[str, Any]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: dict[str, list[str]] = {}
    try:
        header = tuple(name.strip() for name in next(rows, []))
        if header != _HEADER:
            raise OptionError(f"{where}: expected the header {delimiter.join(_HEADER)!r}, got {delimiter.join(header)!r}")
        for row in filter(None, rows):
            if len(row) != len(_HEADER):
                raise OptionError(
                    f"{where}, line {rows.line_num}: expected {len(_HEADER)} fields, got {len(row)}; "
                    'a name with a comma stands in quotes: "tench, Tinca tinca"'
                )
            label, chosen = (field.strip() for field in row)
            found.setdefault(label, []).extend([chosen] if chosen else [])
    except csv.Error as error:
        raise OptionError(f"{where}, line {rows.line_num}: {error}") from error
    if not found:
        raise OptionError(f"{where}: expected rows of a label and a class, found none")
    return dict(found)
