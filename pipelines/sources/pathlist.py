"""A list of images: a text file of paths, one a line, or a CSV table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from labelstore.credentials import without_credentials
from labelstore.errors import ImagesError
from labelstore.pipelines.sources.bytesio import filesystem, read_all
from labelstore.pipelines.sources.listing import Listing, Reordered, check_ids, sorted_by_id, stated_targets
from labelstore.pipelines.sources.places import FilePlace
from labelstore.pipelines.sources.spec import LISTS, NO_LABELS, ImagesSpec, is_url

_PATHS, _IDS = ("path", "file", "filename", "file_name", "image", "url"), ("id", "image_id")
_LABELS = ("label", "class", "target")
_MOST_BYTES = 2**32


@dataclass(frozen=True)
class _Entry:
    path: str
    image_id: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class _Files:
    locations: Sequence[str]

    def __getitem__(self, row: int) -> FilePlace:
        return FilePlace(self.locations[row])


def list_paths(spec: ImagesSpec) -> Listing:
    """List the images that a text file or table names, in byte order of their ids.

    An id is the path as it stands in the list: below the root where it is absolute, without ``https://`` and the like, and
    without credentials (`labelstore.credentials`). A file that is missing is listed; its row fails and says so.

    Raises
    ------
    ImagesError
        The list cannot be read or is empty, has no such column or a row of another length, or two images have one id.
    MissingExtraError
        A package for one of its URLs is not installed.
    """
    (location,) = spec.locations
    entries = _entries(location, spec)
    if not entries:
        raise ImagesError(f"{location}: an empty list; expected a path or URL a line")
    root = spec.root or location.rpartition("/")[0] or "."
    root = root if is_url(root) else str(Path(root).absolute())
    shown = without_credentials(root)
    ids = [entry.image_id or _id_of(without_credentials(entry.path), shown) for entry in entries]
    files = _Files([_location(entry.path, root) for entry in entries])
    _check_paths(ids, files, location)
    order = sorted_by_id(ids)
    ordered = tuple(ids[row] for row in order.tolist())
    labels = [entry.label for entry in entries]
    if spec.label_column == NO_LABELS:
        labels = [""] * len(ids)
    given = None if any(label is None for label in labels) else [labels[row] or "" for row in order.tolist()]
    (targets, names), notes = stated_targets(ordered, given, "the column of labels")
    return Listing(root, ordered, targets, names, Reordered(files, order), notes)


def _check_paths(ids: Sequence[str], files: _Files, where: str) -> None:
    """Refuse ids that cannot be kept, and URLs that nothing here opens: one of a kind is enough."""
    try:
        check_ids(ids, files, where)
    except ImagesError as error:
        hint = "an id is the path as it stands in the list; --images-root says what paths are relative to, a table may have ids"
        raise ImagesError(f"{error}; {hint}") from error
    for url in {path.split("://")[0]: path for path in files.locations if is_url(path)}.values():
        filesystem(url)


def _entries(location: str, spec: ImagesSpec) -> list[_Entry]:
    try:
        text = read_all(location, _MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ImagesError(f"{location}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImagesError(f"{location}: expected UTF-8 text: {error.reason} at byte {error.start}") from error
    if location.lower().endswith(LISTS):
        return [_Entry(line) for line in (line.rstrip("\r") for line in text.split("\n")) if line.strip()]
    return _table(location, text, spec)


def _table(location: str, text: str, spec: ImagesSpec) -> list[_Entry]:
    """The rows of a table with a header."""
    delimiter = "\t" if location.lower().endswith(".tsv") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _table_rows(location, rows, spec)
    except csv.Error as error:
        raise ImagesError(f"{location}, line {rows.line_num}: no {'TSV' if delimiter != ',' else 'CSV'}: {error}") from error


def _table_rows(location: str, rows: Any, spec: ImagesSpec) -> list[_Entry]:
    header = [name.strip() for name in next(rows, [])]
    path = _column(location, header, spec.image_column, _PATHS, "--image-column", needed=True)
    image_id = _column(location, header, spec.id_column, _IDS, "--id-column")
    label = None
    if spec.label_column != NO_LABELS:
        label = _column(location, header, spec.label_column, _LABELS, "--label-column")
    entries = []
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise ImagesError(
                f"{location}, line {rows.line_num}: expected {len(header)} fields as in the header, got {len(row)}"
            )
        if not row[path or 0].strip():
            raise ImagesError(f"{location}, line {rows.line_num}: expected a path in column {header[path or 0]!r}, got none")
        given = (None if at is None else row[at].strip() for at in (image_id, label))
        entries.append(_Entry(row[path or 0], *given))
    return entries


def _column(
    location: str, header: list[str], chosen: str | None, usual: tuple[str, ...], option: str, *, needed: bool = False
) -> int | None:
    names = usual if chosen is None else (chosen,)
    found = next((header.index(name) for name in names if name in header), None)
    if found is None and (needed or chosen is not None):
        raise ImagesError(
            f"{location}: expected a header with a column {' or '.join(map(repr, names))}, "
            f"found {', '.join(header) or 'nothing'}; name another with {option}"
        )
    return found


def _location(path: str, root: str) -> str:
    if is_url(path) or (not is_url(root) and Path(path).is_absolute()):
        return path
    return f"{root.rstrip('/')}/{path}"


def _id_of(path: str, root: str) -> str:
    if is_url(path):
        prefix = root.rstrip("/") + "/"
        return path[len(prefix) :] if path.startswith(prefix) else path.split("://", 1)[1]
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return str(pure.relative_to(root)) if pure.is_relative_to(root) else str(pure).lstrip("/")
    return str(pure)
