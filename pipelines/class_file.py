"""A file that names an annotator's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labelstore.errors import OptionError

Classes = tuple[tuple[str, ...], tuple[str, ...] | None]


def read_classes(path: str, num_classes: int) -> Classes:
    """Read class names, and stable ids where the file has them.

    Parameters
    ----------
    path
        Text: a class a line, a name, or an id and a name with a tab between. JSON: a list of names or of pairs [id, name], or
        an object from class number to either.

    Raises
    ------
    OptionError
        It cannot be read, or names another number of classes.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionError(f"--classes {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"--classes {path}: expected UTF-8 text: {error.reason} at byte {error.start}") from error
    entries = _json(path, text) if path.lower().endswith(".json") else _lines(text)
    entries = [(class_id.strip(), name.strip()) for class_id, name in entries]
    if len(entries) != num_classes:
        raise OptionError(f"--classes {path}: expected {num_classes} classes, as the annotator has, got {len(entries)}")
    names = tuple(name for _, name in entries)
    nameless = [number for number, name in enumerate(names) if not name]
    if nameless:
        raise OptionError(f"--classes {path}: expected a name for every class, got none for class {nameless[0]}")
    ids = tuple(class_id for class_id, _ in entries if class_id)
    if ids and len(ids) != len(entries):
        raise OptionError(f"--classes {path}: expected an id for every class or for none, got {len(ids)} for {len(entries)}")
    return names, ids or None


def _lines(text: str) -> list[tuple[str, str]]:
    lines = text.rstrip("\n").split("\n")
    pairs = (line.rstrip("\r").partition("\t") for line in lines)
    return [(first, name) if tab else ("", first) for first, tab, name in pairs]


def _json(path: str, text: str) -> list[tuple[str, str]]:
    try:
        found = json.loads(text)
        values = found if isinstance(found, list) else [found[str(number)] for number in range(len(found))]
        return [_entry(value) for value in values]
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"--classes {path}: expected a JSON list of names or of [id, name], or an object from class number to either"
        ) from error


def _entry(value: Any) -> tuple[str, str]:
    class_id, name = ("", value) if isinstance(value, str) else value
    if isinstance(value, dict) or not isinstance(class_id, str | int) or not isinstance(name, str):
        raise TypeError("neither a name nor a pair")
    return str(class_id), name
