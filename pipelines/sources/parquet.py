"""Parquet files with images in a column, as Hugging Face data sets keep them."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources.bytesio import call, filesystem, with_retries
from labelstore.pipelines.sources.listing import Listing, Targets, check_ids, folder_targets, named_targets
from labelstore.pipelines.sources.spec import ROW_IDS, ImagesSpec, is_url

_IMAGE, _LABEL = "image", "label"
_KEPT_GROUPS, _KEPT_FILES = 4, 16


@dataclass(frozen=True, slots=True)
class ParquetPlace:
    """A value of a column. A row group is read at once, and a few of them are kept."""

    location: str
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """See `Place.read`."""
        data: bytes | None = _groups.get(self.location, self.group, self.column)[self.row].as_py()
        if data is None:
            raise OSError(0, f"no bytes in column {self.column!r}: an image must be in the file, not elsewhere")
        return data

    def __str__(self) -> str:
        return f"{self.location}: row {self.row} of row group {self.group}"


@dataclass(frozen=True)
class _Values:
    """Places in files, by row: the first row of every row group tells which one it is in."""

    files: Sequence[str]
    column: str
    firsts: NDArray[np.int64]
    groups: Sequence[tuple[int, int]]

    def __getitem__(self, row: int) -> ParquetPlace:
        at = int(np.searchsorted(self.firsts, row, side="right")) - 1
        file, group = self.groups[at]
        return ParquetPlace(self.files[file], self.column, group, row - int(self.firsts[at]))


@dataclass(frozen=True)
class _Table:
    """What one file says of its images."""

    column: str
    group_rows: list[int]
    ids: list[str]
    labels: list[str] | None
    label_names: tuple[str, ...] | None


def list_parquets(files: Sequence[str], spec: ImagesSpec) -> Listing:
    """List the images in Parquet files, in the files' order: a row group is read as a whole.

    Ids: the column that was chosen, else the paths that stand beside the images' bytes, else file and row.

    Raises
    ------
    ImagesError
        A file is missing or no Parquet file, a column is missing or of the wrong type, or two images have one id.
    """
    tables = [_table(file, spec) for file in files]
    where = ", ".join(spec.locations)
    counts = [(rows, (file, group)) for file, table in enumerate(tables) for group, rows in enumerate(table.group_rows) if rows]
    if not counts:
        raise ImagesError(f"{where}: no rows in these {len(files)} Parquet files")
    firsts = np.cumsum([0, *(rows for rows, _ in counts)])[:-1]
    values = _Values(files, tables[0].column, firsts, [group for _, group in counts])
    ids = tuple(image_id for table in tables for image_id in table.ids)
    try:
        check_ids(ids, values, where)
    except ImagesError as error:
        hint = f"name a column of ids with --id-column, or --id-column {ROW_IDS} for file and row"
        raise ImagesError(f"{error}; {hint}") from error
    return Listing(where, ids, *_targets(tables, ids), values)


def _targets(tables: list[_Table], ids: Sequence[str]) -> Targets:
    if any(table.labels is None for table in tables):
        return folder_targets(ids)
    targets, words = named_targets([label for table in tables for label in table.labels or ()])
    return targets, tables[0].label_names or words


def _table(file: str, spec: ImagesSpec) -> _Table:
    parquet = _open(file)
    schema = parquet.schema_arrow
    image, paths = _image_column(file, schema, spec.image_column or _IMAGE)
    number = parquet.metadata.num_rows
    stem = file.rpartition("/")[2]
    if spec.id_column not in (None, ROW_IDS):
        ids = [str(value) for value in _values(file, parquet, schema, str(spec.id_column), "--id-column")]
    elif paths is not None and spec.id_column is None:
        found = [value["path"] for value in parquet.read(columns=[paths]).column(0).to_pylist()]
        ids = [str(path) if path else f"{stem}/{row:08}" for row, path in enumerate(found)]
    else:
        ids = [f"{stem}/{row:08}" for row in range(number)]
    labels = None
    if spec.label_column is not None or _LABEL in schema.names:
        found = _values(file, parquet, schema, spec.label_column or _LABEL, "--label-column")
        labels = [str(-1 if value is None else value) for value in found]
    group_rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    return _Table(image, group_rows, ids, labels, _class_names(schema, spec.label_column or _LABEL))


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
    import pyarrow.types as kinds

    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _values(file: str, parquet: Any, schema: Any, name: str, option: str) -> list[Any]:
    import pyarrow.types as kinds

    if name not in schema.names:
        raise ImagesError(f"{file}: expected a column {name!r}, found {', '.join(schema.names)}; {option} names it")
    kind = schema.field(name).type
    if not (kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind)):
        raise ImagesError(f"{file}: column {name!r} has type {kind}, expected whole numbers or texts ({option})")
    values: list[Any] = parquet.read(columns=[name]).column(0).to_pylist()
    return values


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of labels, where the `datasets` library has written them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _open(file: str) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"{file}: Parquet files need pyarrow: pip install 'labelstore[parquet]' ({error})") from error
    try:
        if not is_url(file):
            return parquet.ParquetFile(file, memory_map=False)
        size = with_retries(file, lambda system, path: call(system, "info", path))["size"]
        system, path = filesystem(file)
        return parquet.ParquetFile(system.open(path, "rb", size=size))
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ImagesError(f"{file}: cannot be read as Parquet: {reason}") from error


class _Groups:
    """The row groups and files that were read last, a few of each. Thread-safe: a group is read by one thread, others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int, str], Any] = OrderedDict()
        self._files: OrderedDict[str, Any] = OrderedDict()

    def get(self, location: str, group: int, column: str) -> Any:
        """Return a row group's values of a column, a pyarrow array."""
        key = (location, group, column)
        with self._lock:
            if key not in self._groups:
                try:
                    self._groups[key] = self._read(*key)
                except ImagesError as error:
                    raise OSError(0, str(error)) from error
                _forget(self._groups, _KEPT_GROUPS)
            self._groups.move_to_end(key)
            return self._groups[key]

    def _read(self, location: str, group: int, column: str) -> Any:
        import pyarrow

        if location not in self._files:
            self._files[location] = _open(location)
            _forget(self._files, _KEPT_FILES)
        self._files.move_to_end(location)
        try:
            table = self._files[location].read_row_group(group, columns=[column])
        except (OSError, pyarrow.ArrowException) as error:
            raise OSError(0, f"row group {group} cannot be read: {str(error).splitlines()[0]}") from error
        values = table.column(0).combine_chunks()
        return values.field("bytes") if "." in column and hasattr(values, "field") else values


def _forget(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


_groups = _Groups()
