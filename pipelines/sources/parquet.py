"""Parquet files with images in a column, as Hugging Face data sets keep them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.credentials import without_credentials
from labelstore.errors import ImagesError
from labelstore.pipelines.sources.listing import Listing, check_ids
from labelstore.pipelines.sources.parquet_labels import FileLabels, column_values, own_targets, read_labels
from labelstore.pipelines.sources.parquet_values import VALUES, open_parquet
from labelstore.pipelines.sources.spec import ROW_IDS, ImagesSpec

_IMAGE = "image"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ParquetPlace:
    """A value of a column."""

    location: str
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """See `Place.read`."""
        data = VALUES.get(self.location, self.group, self.column, self.row)
        if data is None:
            raise OSError(0, f"no bytes in column {self.column!r}: an image must be in the file, not elsewhere")
        return data

    def __str__(self) -> str:
        return without_credentials(f"{self.location}: row {self.row} of row group {self.group}")


@dataclass(frozen=True)
class _Values:
    """Places in files, by row: the first row of every row group tells which one it is in."""

    files: Sequence[str]
    columns: Sequence[str]
    firsts: NDArray[np.int64]
    groups: Sequence[tuple[int, int]]

    def __getitem__(self, row: int) -> ParquetPlace:
        at = int(np.searchsorted(self.firsts, row, side="right")) - 1
        file, group = self.groups[at]
        return ParquetPlace(self.files[file], self.columns[file], group, row - int(self.firsts[at]))


@dataclass(frozen=True)
class _Table:
    """What one file says of its images."""

    column: str
    group_rows: list[int]
    ids: list[str]
    labels: FileLabels


def list_parquets(files: Sequence[str], spec: ImagesSpec) -> Listing:
    """List the images in Parquet files, in the files' order: a value is reached through those before it in its row group.

    Ids: the column that was chosen, else the paths that stand beside the images' bytes, else file and row.

    Raises
    ------
    ImagesError
        A file is missing or no Parquet file, a column is missing or of the wrong type, or two images have one id.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        tables = list(threads.map(partial(_table, spec), files, _names(files)))
    where = ", ".join(spec.locations)
    counts = [(rows, (file, group)) for file, table in enumerate(tables) for group, rows in enumerate(table.group_rows) if rows]
    if not counts:
        raise ImagesError(f"{where}: no rows in these {len(files)} Parquet files")
    firsts = np.cumsum([0, *(rows for rows, _ in counts)])[:-1]
    values = _Values(files, [table.column for table in tables], firsts, [group for _, group in counts])
    ids = tuple(image_id for table in tables for image_id in table.ids)
    try:
        check_ids(ids, values, where)
    except ImagesError as error:
        hint = f"name a column of ids with --id-column, or --id-column {ROW_IDS} for file and row"
        raise ImagesError(f"{error}; {hint}") from error
    (targets, names), notes = own_targets([table.labels for table in tables])
    return Listing(where, ids, targets, names, values, notes)


def _names(files: Sequence[str]) -> list[str]:
    """What files are called in ids: their names, with folders where those alone are not theirs."""
    names = [file.rpartition("/")[2] for file in files]
    if len(set(names)) == len(names):
        return names
    parts = [file.split("/") for file in files]
    first = next(level for level, folders in enumerate(zip(*parts, strict=False)) if len(set(folders)) > 1)
    return ["/".join(part[first:]) for part in parts]


def _table(spec: ImagesSpec, file: str, name: str) -> _Table:
    with open_parquet(file) as parquet:
        try:
            return _read_table(spec, file, name, parquet)
        except OSError as error:  # pyarrow's for damage, and a server's
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise ImagesError(f"{file}: cannot be read as Parquet: {reason}") from error


def _read_table(spec: ImagesSpec, file: str, name: str, parquet: Any) -> _Table:
    schema = parquet.schema_arrow
    image, paths = _image_column(file, schema, spec.image_column or _IMAGE)
    if spec.id_column not in (None, ROW_IDS):
        found = column_values(file, parquet, str(spec.id_column), "--id-column")
    elif paths is not None and spec.id_column is None:
        found = [value and value["path"] for value in parquet.read(columns=[paths]).column(0).to_pylist()]
    else:
        found = [None] * parquet.metadata.num_rows
    ids = [f"{name}/{row:08}" if value in (None, "") else str(value) for row, value in enumerate(found)]
    labels = read_labels(file, parquet, spec)
    group_rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    return _Table(image, group_rows, ids, labels)


def _image_column(file: str, schema: Any, name: str) -> tuple[str, str | None]:
    """Return the column of bytes, and the one of paths if there is one."""
    import pyarrow.types as kinds

    if name not in schema.names:
        columns = ", ".join(schema.names)
        raise ImagesError(f"{file}: expected a column {name!r} of images, found {columns}; name it with --image-column")
    kind = schema.field(name).type
    if kinds.is_struct(kind):
        fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        if "bytes" in fields and _is_binary(fields["bytes"]):
            return f"{name}.bytes", f"{name}.path" if "path" in fields else None
    if _is_binary(kind):
        return name, None
    raise ImagesError(
        f"{file}: column {name!r} has type {kind}, expected binary, or a struct with binary 'bytes' (and 'path'); "
        "name another with --image-column"
    )


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")
