"""What somebody else's store says of itself, checked value by value."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from labelstore.errors import FormatError


class Attributes:
    """Takes typed values out of somebody's JSON object, or says what is wrong with it.

    Parameters
    ----------
    values
        The object, as JSON gives it.
    where
        The store, for messages.
    path
        The object's own place in its attributes, with a dot at its end.
    """

    def __init__(self, values: object, where: str, path: str) -> None:
        self.where = where
        self.path = path
        if not isinstance(values, Mapping):
            raise self.wrong("", "an object", type(values).__name__)
        self.values = values

    def wrong(self, key: str, expected: str, found: object) -> FormatError:
        """An error for a value."""
        return FormatError(f"{self.where}: attribute '{self.path}{key}': expected {expected}, found {str(found)[:80]}")

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number, both ends included."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number in {low}..{high}", repr(value))
        return value

    def text(self, key: str, optional: bool = False) -> Any:
        """A text; None where it may be missing."""
        value = self.values.get(key)
        if not isinstance(value, str) and not (optional and value is None):
            raise self.wrong(key, "a text", repr(value))
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", repr(value))
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        """One of a few texts."""
        value = self.values.get(key)
        if value not in choices:
            raise self.wrong(key, " or ".join(map(repr, choices)), repr(value))
        return str(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object as it is."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object", repr(value))
        return value

    def nested(self, key: str) -> Attributes:
        """An object inside, to take values out of."""
        return Attributes(self.mapping(key), self.where, f"{self.path}{key}.")

    def number(self, key: str) -> float:
        """A number."""
        value = _as_float(self.values.get(key))
        if value is None:
            raise self.wrong(key, "a number", repr(self.values.get(key)))
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of texts, None where it is missing."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise self.wrong(key, "a list of texts or null", repr(value))
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self.values.get(key)
        found = [_as_float(entry) for entry in value] if isinstance(value, list | tuple) else [None]
        if None in found:
            raise self.wrong(key, "a list of numbers", repr(value))
        return tuple(entry for entry in found if entry is not None)

    def size(self, key: str) -> tuple[int, int]:
        """A height and a width."""
        value = self.values.get(key)
        if isinstance(value, list | tuple) and len(value) == 2:
            height, width = value
            if all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 4096 for n in (height, width)):
                return height, width
        raise self.wrong(key, "[height, width], each in 1..4096", repr(value))


def _as_float(value: object) -> float | None:
    """A number that a float holds, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isinstance(value, float) or abs(value) <= sys.float_info.max else None
