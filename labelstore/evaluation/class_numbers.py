"""Classes as people write them: numbers, ids or names of the store's."""

from __future__ import annotations

from typing import Any

from labelstore.class_names import ClassNames
from labelstore.errors import ClassMapError
from labelstore.schema import StoreInfo


class ClassNumbers:
    """Turns class numbers, ids (wnids for ImageNet), names and parts of names into the store's class numbers."""

    def __init__(self, info: StoreInfo) -> None:
        self._info, self._names = info, ClassNames(info)

    def of(self, value: Any, where: str) -> int:
        """Return the number of one class.

        Raises
        ------
        ClassMapError
            The store has no such class, or several that are called so.
        """
        count = self._info.num_classes
        found = self._names.find(value) if isinstance(value, str) else ()
        if len(found) == 1:
            return found[0]
        if type(value) is int and 0 <= value < count:
            return value
        got = self._names.why_not(value) if found else f"{value!r}{self._similar(value)}"
        named = ", or an id or name of one" if self._names else ""
        raise ClassMapError(f"{where}: expected a class of the store, 0..{count - 1}{named}, got {got}")

    def _similar(self, value: Any) -> str:
        near = self._names.near(value) if isinstance(value, str) else []
        return f"; similar: {', '.join(map(repr, near))}" if near else ""
