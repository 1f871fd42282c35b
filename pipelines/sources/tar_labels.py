"""The labels of a tar file's images: its ``.cls`` members, and which images each is for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from labelstore.errors import ImagesError
from labelstore.pipelines.sources.places import PartPlace

ENDING = ".cls"
MOST_BYTES = 256
"""Bytes of a label at most: a class number, or a name."""


@dataclass
class TarLabels:
    """``.cls`` members by the names that they share with images.

    ``2021.05.01.cls`` is the label of ``2021.05.01.jpg``, of the full stem. Where no image has a member's stem it is the label
    of its sample's images, as WebDataset tells samples apart (`sample_key`): ``a.cls`` of ``a.left.jpg`` and ``a.right.jpg``.
    """

    _by_stem: dict[str, tuple[PartPlace, str]] = field(default_factory=dict)

    def add(self, place: PartPlace, content: bytes) -> None:
        """Take a member.

        Raises
        ------
        ImagesError
            It holds no class number or name, or is there twice.
        """
        stem, text = _stem(place.member), _text(place, content)
        if stem in self._by_stem:
            raise ImagesError(f"two labels for {stem!r}: {self._by_stem[stem][0]} and {place}")
        self._by_stem[stem] = place, text

    def find(self, member: str) -> str | None:
        """Return the label in a member, if it is there."""
        found = self._by_stem.get(_stem(member))
        return None if found is None else found[1]

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the labels of images, '' where there is none.

        Raises
        ------
        ImagesError
            An image may have several that differ; names both places.
        """
        stems = [_stem(name) for name in names]
        with_own = set(stems)
        by_key: dict[str, list[tuple[PartPlace, str]]] = {}
        for stem, found in self._by_stem.items():
            if stem not in with_own and not stem.rpartition("/")[2].startswith("."):
                by_key.setdefault(sample_key(stem), []).append(found)
        return tuple(self._one(name, stem, by_key) for name, stem in zip(names, stems, strict=True))

    def _one(self, name: str, stem: str, by_key: dict[str, list[tuple[PartPlace, str]]]) -> str:
        if stem in self._by_stem:
            return self._by_stem[stem][1]
        several = by_key.get(sample_key(stem), [])
        if not several:
            return ""
        (first, label), *others = several
        for place, other in others:
            if other != label:
                key = sample_key(stem)
                raise ImagesError(f"{name}: several labels of key {key!r}: {label} in {first}, {other} in {place}")
        return label


def sample_key(name: str) -> str:
    """Return what WebDataset tells samples apart by: the name up to the first dot of its last part."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    return folder + slash + base.split(".")[0]


def _stem(name: str) -> str:
    """The name without its extension; WebDataset takes capitals after the first dot for small letters."""
    key = sample_key(name)
    rest = name.removeprefix("./")[len(key) :].lower()
    return key + rest.rpartition(".")[0]


def _text(place: PartPlace, content: bytes) -> str:
    """A label as it is compared: numbers as WebDataset decodes them."""
    if len(content) <= MOST_BYTES:
        with contextlib.suppress(ValueError):
            return str(int(content))
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode().strip()
            if text.isprintable():
                return text
    raise ImagesError(f"{place}: expected a class number, or a name of at most {MOST_BYTES} bytes, got {content[:20]!r}")
