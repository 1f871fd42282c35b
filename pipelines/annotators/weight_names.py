"""The names of classes that a checkpoint keeps beside its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_KEYS = ("class_names", "classes", "categories", "class_to_idx", "id2label")
_BESIDE = ("meta", "hyper_parameters")
Names = tuple[str, ...]


def names_in(checkpoint: Mapping[str, Any]) -> Names | None:
    """Return the classes' names in one level of a checkpoint, in the classes' order; None if it has none.

    A list of names (``class_names``, ``classes``, ``categories``), ImageFolder's ``class_to_idx``, or ``id2label``; also below
    ``meta`` or ``hyper_parameters``.
    """
    return next(_all_names(checkpoint), None)


def names_in_metadata(metadata: Mapping[str, str] | None) -> Names | None:
    """Return the names in a safetensors file's metadata: the same keys, each one's value in JSON."""
    found = {}
    for key in _KEYS:
        with suppress(ValueError, TypeError, KeyError):
            found[key] = json.loads((metadata or {})[key])
    return names_in(found)


def _all_names(checkpoint: Mapping[str, Any]) -> Iterator[Names]:
    for place in (checkpoint, *(checkpoint.get(key) for key in _BESIDE)):
        if isinstance(place, Mapping):
            for key in _KEYS:
                found = _names(place.get(key))
                if found:
                    yield found


def _names(value: Any) -> Names | None:
    if isinstance(value, Mapping):
        value = _in_order(value)
    texts = isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value)
    return tuple(value) if texts else None


def _in_order(value: Mapping[Any, Any]) -> list[Any] | None:
    """Names of an object from name to number, or from number to name."""
    pairs = [(number, name) if isinstance(number, int) else (name, number) for name, number in value.items()]
    with suppress(ValueError, TypeError):
        by_number = {int(number): name for number, name in pairs}
        if sorted(by_number) == list(range(len(value))):
            return [by_number[number] for number in range(len(value))]
    return None
