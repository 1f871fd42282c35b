"""Classes as people write them: numbers, ids or names of the store's."""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cached_property
from typing import Any

from labelstore.errors import ClassMapError
from labelstore.ids import LONGEST_COMPARED
from labelstore.schema import StoreInfo

_SHOWN = 3


class ClassNumbers:
    """Turns class numbers, ids (wnids for ImageNet) and names into the store's class numbers.

    A name that two classes share (ImageNet has two cranes) names none.
    """

    def __init__(self, info: StoreInfo) -> None:
        self._info = info

    @cached_property
    def _places(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for names in (self._info.class_names, self._info.class_ids):
            counts = Counter(names or ())
            found.update((name, place) for place, name in enumerate(names or ()) if counts[name] == 1)
        return found

    def of(self, value: Any, where: str) -> int:
        """Return the number of one class.

        Raises
        ------
        ClassMapError
            The store has no such class.
        """
        count = self._info.num_classes
        if isinstance(value, str) and value in self._places:
            return self._places[value]
        if type(value) is int and 0 <= value < count:
            return value
        named = "" if self._info.class_names is None else ", or an id or name of one"
        raise ClassMapError(
            f"{where}: expected a class of the store, 0..{count - 1}{named}, got {value!r}{self._similar(value)}"
        )

    def _similar(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > LONGEST_COMPARED:
            return ""
        within = [name for name in self._places if value and value.lower() in name.lower()][:_SHOWN]
        close = within or difflib.get_close_matches(value, self._places, _SHOWN)
        return f"; similar: {', '.join(map(repr, close))}" if close else ""
