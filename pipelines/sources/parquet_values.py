"""Values of Parquet columns, some rows at a time: a row group may be a whole file, and larger than memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources.bytesio import open_file
from labelstore.pipelines.sources.spec import is_url

_PIECE_BYTES, _MOST_ROWS = 2**21, 64
_KEPT_PIECES, _KEPT_CURSORS, _KEPT_FILES = 64, 2, 16
_BUFFER, _REMOTE_BUFFER, _REMOTE_BLOCK = 2**20, 2**23, 2**16
_Column = tuple[str, int, str]
"""File, row group, column."""


def open_parquet(file: str) -> Any:
    """Open a Parquet file: pyarrow's `ParquetFile`, that reads no more than it needs.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    ImagesError
        The file is missing, or no whole Parquet file.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"{file}: Parquet files need pyarrow: pip install 'labelstore[parquet]' ({error})") from error
    try:
        stream = open_file(file, _REMOTE_BLOCK)
        if is_url(file):
            return parquet.ParquetFile(stream, buffer_size=_REMOTE_BUFFER, pre_buffer=False)
        stream.close()  # it is a file: pyarrow would wait for a pipe
        return parquet.ParquetFile(file, memory_map=False, buffer_size=_BUFFER, pre_buffer=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise ImagesError(f"{file}: cannot be read as Parquet: {_reason(error)}") from error


@dataclass(eq=False)
class _Piece:
    """Values of some rows that follow each other, a pyarrow array, and how many of them were not asked for yet."""

    column: _Column
    start: int
    values: Any
    left: int

    def holds(self, column: _Column, row: int) -> bool:
        return self.column == column and self.start <= row < self.start + len(self.values)


class _Cursor:
    """Goes through a column of a row group, once and forwards."""

    def __init__(self, parquet: Any, column: _Column) -> None:
        rows = parquet.metadata.row_group(column[1])
        self._column = column
        self._many = max(1, min(_MOST_ROWS, _PIECE_BYTES * rows.num_rows // max(rows.total_byte_size, 1)))
        self._batches = parquet.iter_batches(self._many, row_groups=[column[1]], columns=[column[2]], use_threads=False)
        self._rows = rows.num_rows
        self.row = 0
        self.damage = ""

    @property
    def is_over(self) -> bool:
        return bool(self.row >= self._rows)

    def advance(self) -> _Piece:
        """Return the next piece.

        Raises
        ------
        OSError
            It cannot be read; if it is damaged neither can those after it.
        """
        import pyarrow

        try:
            values = next(self._batches).column(0)
        except (StopIteration, OSError, pyarrow.ArrowException) as error:
            why = f"row group {self._column[1]} cannot be read from row {self.row} on: {_reason(error)}"
            if getattr(error, "errno", None) is None:  # not the system's or a server's: pyarrow's
                self.damage = why
            raise OSError(0, why) from error
        found = values.field("bytes") if hasattr(values, "field") else values
        piece = _Piece(self._column, self.row, found, len(found))
        self.row += len(values)
        return piece


class Values:
    """Columns' values by row, once each and nearly in order: what was passed on the way is kept for a while, since a thread may
    come late. Any other order works too, but begins again at the row group's start. Thread-safe: one reads, others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[_Piece] = deque(maxlen=_KEPT_PIECES)
        self._cursors: OrderedDict[_Column, _Cursor] = OrderedDict()
        self._files: OrderedDict[str, Any] = OrderedDict()

    def get(self, location: str, group: int, column: str, row: int) -> bytes | None:
        """Return one value.

        Raises
        ------
        OSError
            It cannot be read; ``strerror`` says why.
        """
        key = (location, group, column)
        with self._lock:
            piece = next((piece for piece in self._pieces if piece.holds(key, row)), None) or self._read(key, row)
            piece.left -= 1
            if piece.left == 0:
                self._pieces.remove(piece)
        value: bytes | None = piece.values[row - piece.start].as_py()
        return value

    def _read(self, column: _Column, row: int) -> _Piece:
        cursor = self._cursors.get(column)
        if cursor is None or cursor.row > row:
            cursor = self._cursors[column] = _Cursor(self._file(column[0]), column)
        _use(self._cursors, column, _KEPT_CURSORS)
        if cursor.damage:
            raise OSError(0, cursor.damage)
        try:
            while cursor.row <= row:
                self._pieces.append(cursor.advance())
            if cursor.is_over:
                del self._cursors[column]  # it holds a page, which may be large
        except OSError:
            if not cursor.damage:
                del self._cursors[column]  # next time it may go well
            raise
        return self._pieces[-1]

    def _file(self, location: str) -> Any:
        if location not in self._files:
            try:
                self._files[location] = open_parquet(location)
            except ImagesError as error:
                raise OSError(0, str(error)) from error
        _use(self._files, location, _KEPT_FILES)
        return self._files[location]


def _use(kept: OrderedDict[Any, Any], key: Any, most: int) -> None:
    """Note that something was used, and forget what was not used for longest."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _reason(error: Exception) -> str:
    lines = (getattr(error, "strerror", None) or str(error)).splitlines()
    return lines[0] if lines else "it ends too early"


VALUES = Values()
