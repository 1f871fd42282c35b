"""What a user names as images, and what kind of source that is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from labelstore.errors import ImagesError

LISTS, TABLES, TARS, PARQUETS = (".txt", ".lst"), (".csv", ".tsv"), (".tar",), (".parquet",)
_KINDS = {"list": (*LISTS, *TABLES), "tar": TARS, "parquet": PARQUETS}
_PACKED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d{1,30})\.\.(-?\d{1,30})")
MOST_NAMES, _MOST_LETTERS = 1_000_000, 2**28
"""Of one pattern, and of all patterns of a source."""
_SHOWN = 200
ROW_IDS, NO_LABELS = "@row", "@none"


@dataclass(frozen=True)
class ImagesSpec:
    """Images as a user names them.

    Parameters
    ----------
    locations
        One folder, one list, or any number of tar or Parquet files: paths or URLs. Braces (``{0000..0146}``, ``{a,b}``) and
        ``*`` stand for several files.
    root
        What relative paths in a list are relative to; None: the list's folder.
    image_column, id_column, label_column
        Columns of a Parquet file or CSV list. None: the usual names. An id column of ``@row`` numbers the rows; a
        label column of ``@none`` leaves labels out.
    hidden
        Whether hidden files of folders and tar files are images too: names that begin with a dot, ``__MACOSX``.
    """

    locations: tuple[str, ...]
    root: str | None = None
    image_column: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    hidden: bool = False

    @property
    def kind(self) -> str:
        """``folder``, ``list``, ``tar`` or ``parquet``, by the names.

        Raises
        ------
        ImagesError
            Several of different kinds, several folders or lists, or a compressed tar file.
        """
        kinds = {_kind(location) for location in self.locations}
        if len(kinds) != 1 or (len(self.locations) > 1 and not kinds <= {"tar", "parquet"}):
            raise ImagesError(
                f"{', '.join(self.locations[:3])}: expected one folder, one list, or any number of tar or of Parquet files"
            )
        return kinds.pop()

    @property
    def exif(self) -> str:
        """The EXIF rule that training on such a source goes by: the `datasets` library turns photographs upright."""
        return "apply" if self.kind == "parquet" else "ignore"


def is_url(location: str) -> bool:
    """Whether a location is a URL; ``C:`` and the like are none."""
    return "://" in location


def is_folder(location: str) -> bool:
    """Whether a location is a folder here."""
    try:
        return Path(location).is_dir()
    except OSError:  # too long for a name
        return False


def expand_braces(pattern: str) -> list[str]:
    """Return what ``{0000..0146}`` and ``{a,b}`` in a name stand for, in order.

    Raises
    ------
    ImagesError
        They stand for too much: looked at before any of it is made.
    """
    pieces, end = [_Piece("")], 0
    for found in _BRACES.finditer(pattern):
        pieces += [_Piece(pattern[end : found.start()]), _Piece.of_braces(found)]
        end = found.end()
    pieces.append(_Piece(pattern[end:]))
    count, longest = math.prod(piece.count for piece in pieces), sum(piece.longest for piece in pieces)
    if count > MOST_NAMES or count * longest > _MOST_LETTERS:
        shown = pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}..."
        many = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise ImagesError(f"{shown}: expected braces that stand for at most {MOST_NAMES:,} names, got {many}")
    return ["".join(parts) for parts in product(*(piece.choices() for piece in pieces))]


@dataclass(frozen=True)
class _Piece:
    """A part of a name: a text, several (``{a,b}``), or numbers (``{first..last}``)."""

    text: str
    numbers: tuple[int, int] | None = None
    width: int = 0
    several: bool = False

    @classmethod
    def of_braces(cls, braces: re.Match[str]) -> _Piece:
        inside = braces.group(1)
        ends = _RANGE.fullmatch(inside)
        if ends is None:
            return cls(inside, several=True) if "," in inside else cls(braces.group(0))
        first, last = ends.groups()
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        return cls(inside, (int(first), int(last)), width)

    @property
    def count(self) -> int:
        if self.numbers is not None:
            return abs(self.numbers[1] - self.numbers[0]) + 1
        return self.text.count(",") + 1 if self.several else 1

    @property
    def longest(self) -> int:
        return max(map(len, self.text.split(","))) if self.several else len(self.text)

    def choices(self) -> list[str]:
        if self.numbers is None:
            return self.text.split(",") if self.several else [self.text]
        first, last = self.numbers
        step = 1 if first <= last else -1
        return [f"{number:0{self.width}}" for number in range(first, last + step, step)]


def _kind(location: str) -> str:
    name = location.split("?")[0].lower() if is_url(location) else location.lower()
    if name.endswith(_PACKED):
        raise ImagesError(f"{location}: a compressed tar file has no random access; unpack it to .tar, or to a folder")
    if not is_url(location) and is_folder(location):
        return "folder"
    return next((kind for kind, endings in _KINDS.items() if name.endswith(endings)), "folder")
