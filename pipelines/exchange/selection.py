"""Which rows of a store are meant: all, those of ids in a file, those whose ids match a pattern."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import OptionError
from labelstore.ids import IdTable


@dataclass(frozen=True)
class Selection:
    """What a user says of it: a file with an id a line; patterns as of a shell, of which ``*`` stands for ``/`` too.

    With neither, all rows; with both, rows that are in the file and match a pattern.
    """

    ids_file: str | None = None
    patterns: tuple[str, ...] = ()

    def rows(self, ids: IdTable) -> NDArray[np.int64]:
        """Return the rows that are meant, in order.

        Raises
        ------
        OptionError
            A file that cannot be read; nothing is meant.
        UnknownIdError
            An id that has no row.
        """
        named = None if self.ids_file is None else ids.rows(read_ids(self.ids_file))
        rows = np.arange(len(ids)) if named is None else np.unique(named)
        if self.patterns:
            rows = rows[_match(ids, rows, self.patterns)]
        if not len(rows):
            raise OptionError(f"{', '.join([self.ids_file or '', *self.patterns]).strip(', ')}: no image of the store is meant")
        return rows


def read_ids(file: str) -> list[str]:
    """Return the ids in a text file, one a line; empty lines are none.

    Raises
    ------
    OptionError
    """
    try:
        with Path(file).open(encoding="utf-8-sig") as lines:
            return [line for line in (line.rstrip("\r\n") for line in lines) if line]
    except OSError as error:
        raise OptionError(f"--ids {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"--ids {file}: expected UTF-8 text, an id a line: {error.reason} at byte {error.start}") from error


def _match(ids: IdTable, rows: NDArray[np.int64], patterns: Sequence[str]) -> list[bool]:
    fits = re.compile("|".join(map(fnmatch.translate, patterns))).match
    every = len(rows) == len(ids)
    names = iter(ids) if every else (ids[row] for row in rows.tolist())
    return [bool(name) and fits(name) is not None for name in names]
