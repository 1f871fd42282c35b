"""A store's classes by what they are called: ids, whole names, or any one of a name's synonyms."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property

from labelstore.ids import LONGEST_COMPARED
from labelstore.schema import StoreInfo

_SHOWN = 3
_Places = dict[str, tuple[int, ...]]


class ClassNames:
    """Finds classes by their ids (wnids for ImageNet), their names, and the parts of names between commas.

    Several classes may be called alike: ImageNet has two cranes, a *maillot* and a *maillot, tank suit*. Such names find all of
    them; ids go before names.
    """

    def __init__(self, info: StoreInfo) -> None:
        self._info = info

    def __bool__(self) -> bool:
        return self._info.class_ids is not None or self._info.class_names is not None

    def find(self, text: str) -> tuple[int, ...]:
        """Return the classes that are called so: none, one, or several that cannot be told apart by it."""
        return self._ids.get(text) or self._names_and_parts.get(text, ())

    def find_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return `find` of each. Texts that are the store's names with their commas are taken as whole names alone: among
        these, *missile* is not the *projectile, missile*. Nor is it beside a text *projectile*: that class is taken."""
        if tuple(texts) in (self._info.class_ids, self._info.class_names):
            return [(place,) for place in range(len(texts))]
        whole = any("," in text for text in texts) and all(text in self._names for text in texts)
        return [self._names[text] for text in texts] if whole else _without_taken([self.find(text) for text in texts])

    def why_not(self, text: str) -> str:
        """Return why `find` has not found one class, with what would do."""
        found = self.find(text)
        if len(found) > 1:
            which = " or ".join(map(self.called, found[:_SHOWN]))
            return f"{text!r} may be class {which}{' or others' if len(found) > _SHOWN else ''}: say which, by id or number"
        near = ", ".join(map(repr, self.near(text)))
        return f"{text!r} (similar: {near})" if near else repr(text)

    def called(self, number: int) -> str:
        """Return a class as messages name it: number, and id and name where they are known."""
        known = [names[number] for names in (self._info.class_ids, self._info.class_names) if names is not None]
        return f"{number} ({', '.join(known)})" if known else str(number)

    def near(self, text: str) -> list[str]:
        """Return the ids, names and synonyms that are most like a text."""
        if not text.strip() or len(text) > LONGEST_COMPARED:
            return []
        wanted = text.replace("_", " ").lower()
        known = {name.lower(): name for places in (self._ids, self._names_and_parts) for name in places}
        within = sorted((name for name in known if wanted in name), key=len)
        close = list(dict.fromkeys([*within, *difflib.get_close_matches(wanted, known, _SHOWN)]))[:_SHOWN]
        return [known[name] for name in close]

    @cached_property
    def _ids(self) -> _Places:
        return _placed([class_id] for class_id in self._info.class_ids or ())

    @cached_property
    def _names(self) -> _Places:
        return _placed([name] for name in self._info.class_names or ())

    @cached_property
    def _names_and_parts(self) -> _Places:
        names = self._info.class_names or ()
        return _placed({name, *(part.strip() for part in name.split(","))} - {""} for name in names)


def _without_taken(found: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Leave out of those that may be several classes the ones that another one alone is, as long as that decides any."""
    taken = {places[0] for places in found if len(places) == 1}
    left = [tuple(place for place in places if place not in taken) if len(places) > 1 else places for places in found]
    return _without_taken(left) if left != found else found


def _placed(names: Iterable[Iterable[str]]) -> _Places:
    found: dict[str, tuple[int, ...]] = {}
    for place, of_class in enumerate(names):
        for name in of_class:
            found[name] = (*found.get(name, ()), place)
    return found
