"""One shard of a store, checked through and through: its files, its chunks, its values."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays, find_encoding
from labelstore.errors import DamagedError, StoreReadError, StoreTooLargeError
from labelstore.pipelines.files import commit_record
from labelstore.pipelines.store_files import StoreFiles, UnreadableFileError
from labelstore.schema import COMMIT_FIELDS, IMAGE_SIZE, MAX_IMAGE_SIDE, ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage.chunks import MISSING, decode_chunk, largest_chunk, largest_file, largest_shard_file, read_index
from labelstore.storage.frames import FrameError, decode_frame
from labelstore.storage.metadata import commits_spec
from labelstore.storage.origin import ids_seal, origin_problem, split_commit
from labelstore.storage.plain import check_plain

_READ_ANYWAY = 1 << 26
"""A file that is longer than its commit says is read, to tell what is in it, up to so many bytes."""


@dataclass
class ShardCheck:
    """What a shard holds: rows by status, and problems as (file, what is wrong, row or None)."""

    shard: int
    committed: bool = False
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str, int | None]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files at which the disk fails, and what it says: of the shard nothing is known."""

    @property
    def damaged(self) -> bool:
        """Whether it is certain that the shard is not what was committed."""
        return bool(self.problems) and not self.unreadable


class _Content:
    """A file's bytes, read as a `DataFile` is."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.length, self._data = path, len(data), data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def check_shard(files: StoreFiles, info: StoreInfo, shard: int, ids: bool = True) -> ShardCheck:
    """Check all of a shard's files; a shard without a commit is pending, whatever lies there.

    ``ids``: whether the rows' ids can be trusted, so that the commit must be of them.
    """
    found, rows = ShardCheck(shard), info.shard_rows(shard)
    specs = committed_arrays(info)
    commit = _commit(files, info, shard, found, ids)
    if commit is None:
        found.rows["unreadable" if found.unreadable else "damaged" if found.problems else "pending"] += len(rows)
        return found
    found.committed = True
    _require_memory(specs, commit, info)
    arrays = {}
    for spec, record in zip(specs, commit, strict=True):
        values = _array(files, spec, record, info, shard, found)
        if values is not None:
            arrays[spec.name] = values
    if not found.problems and not found.unreadable:
        _check_values(arrays, info, shard, found)
    if found.problems or found.unreadable:
        found.rows["unreadable" if found.unreadable else "damaged"] += len(rows)
    else:
        counts = np.bincount(arrays["status"][: len(rows)], minlength=len(Status))
        found.rows.update(done=int(counts[Status.DONE]), failed=int(counts[Status.FAILED]))
    return found


def sealed_files(files: StoreFiles, info: StoreInfo, shard: int) -> dict[str, bytes]:
    """Return a committed shard's files by the name of their array: to the byte what was committed, but not looked into.

    Raises
    ------
    DamagedError
        A file that is missing, or another one.
    """
    specs, found = committed_arrays(info), ShardCheck(shard)
    commit = _commit(files, info, shard, found)
    if found.unreadable:
        raise StoreReadError(found.unreadable[0][1])
    kept = {} if commit is None else {spec.name: files.read(_key(spec, shard), _most(spec, info)) for spec in specs}
    for record, (name, data) in zip(commit or (), kept.items(), strict=True):
        if data is None or list(commit_record(data)) != record:
            found.problems.append((name, "missing" if data is None else "not the file that was committed", None))
    if found.problems or commit is None:
        where, what = found.problems[0][:2] if found.problems else ("commits", "no commit")
        raise DamagedError(f"shard {shard}: {where}: {what}; run labelstore repair")
    return {name: data for name, data in kept.items() if data is not None}


def _commit(files: StoreFiles, info: StoreInfo, shard: int, found: ShardCheck, ids: bool = True) -> list[list[int]] | None:
    """Return what a shard's commit keeps of its files; None if there is none, or one that does not count here."""
    spec = commits_spec(info)
    key = _key(spec, shard)
    try:
        data = files.read(key, largest_file(spec, 1))
        commit = None if data is None else decode_chunk(data, spec, 1, key)[0]
    except OSError as error:
        found.problems.append((key, _without(key, error), None))
        return None
    except UnreadableFileError as error:
        found.unreadable.append((key, str(error)))
        return None
    sealed, origin = (None, []) if commit is None else split_commit(commit, info)
    problem = origin_problem(origin, info, _ids_seal(files, info, shard) if origin and ids else None)
    if problem:
        found.problems.append((key, problem, None))
    return None if sealed is None or problem else sealed.tolist()


def _ids_seal(files: StoreFiles, info: StoreInfo, shard: int) -> int | None:
    """The seal of a shard's ids; None where they are lost, which is told elsewhere."""
    spec = index_arrays(info)[0]
    key = _key(spec, shard)
    try:
        data = files.read(key, largest_file(spec, info.shard_size))
        ids = None if data is None else decode_chunk(data, spec, info.shard_size, key)
    except (OSError, UnreadableFileError):
        return None
    return None if ids is None else ids_seal(ids[: len(info.shard_rows(shard))])


def _array(
    files: StoreFiles, spec: ArraySpec, record: list[int], info: StoreInfo, shard: int, found: ShardCheck
) -> NDArray[Any] | None:
    """Return an array's rows, ``[shard_size, ...]`` or fewer; None if there is anything wrong with its file."""
    key, before = _key(spec, shard), len(found.problems)
    try:
        data = files.read(key, min(_most(spec, info), max(record[0], _READ_ANYWAY)))
        if data is None:
            raise DamagedError(f"{key}: missing, though shard {shard} is committed")
    except OSError as error:
        found.problems.append((key, _without(key, error), None))
        return None
    except UnreadableFileError as error:
        found.unreadable.append((key, str(error)))
        return None
    seal = commit_record(data)
    if list(seal) != record:
        wrong = [name for name, one, other in zip(COMMIT_FIELDS, seal, record, strict=True) if one != other]
        found.problems.append((key, f"not the file that was committed: another {', another '.join(wrong)}", None))
    try:
        values = _by_row(key, data, spec, info, shard, found) if spec.by_row else decode_chunk(data, spec, info.shard_size, key)
    except DamagedError as error:
        found.problems.append((key, _without(key, error), None))
    return None if len(found.problems) > before else values


def _by_row(key: str, data: bytes, spec: ArraySpec, info: StoreInfo, shard: int, found: ShardCheck) -> NDArray[Any]:
    rows = info.shard_rows(shard)
    offsets, lengths = read_index(_Content(key, data), info.shard_size, largest_chunk(spec))
    out = np.empty((len(rows), *spec.row_shape), spec.numpy_dtype)
    for local, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        if local >= len(rows):
            if length != MISSING:
                found.problems.append((key, f"a chunk for row {rows.start + local}, which the shard does not have", None))
            continue
        chunk = data[offset : offset + length]
        try:
            decoded = decode_frame(chunk, spec.row_bytes) if spec.compressed else check_plain(chunk, spec.row_bytes)
        except FrameError as error:
            where = f"the chunk at offset {offset} ({length} bytes) is damaged: {error}"
            found.problems.append((key, where if length != MISSING else "no chunk for the row", rows.start + local))
            continue
        out[local] = np.frombuffer(decoded, spec.numpy_dtype).reshape(spec.row_shape)
    return out


def _check_values(arrays: dict[str, NDArray[Any]], info: StoreInfo, shard: int, found: ShardCheck) -> None:
    rows = info.shard_rows(shard)
    files = {spec.name: f"{spec.name}/{spec.file_name(shard)}" for spec in committed_arrays(info)}
    for local in np.flatnonzero(arrays["status"][len(rows) :] != Status.HOLE).tolist():
        message = f"expected a hole ({Status.HOLE}) behind the last row, found {arrays['status'][len(rows) + local]}"
        found.problems.append((files["status"], f"row {rows.stop + local}: {message}", None))
    behind = arrays[IMAGE_SIZE.name][len(rows) :] if IMAGE_SIZE.name in arrays else np.zeros((0, 2))
    for local in np.flatnonzero(behind.any(axis=1)).tolist():
        message = f"expected 0, 0 behind the last row, found {behind[local].tolist()}"
        found.problems.append((files[IMAGE_SIZE.name], f"row {rows.stop + local}: {message}", None))
    for name, message, local in itertools.chain(
        _status_problems(arrays, len(rows)), _size_problems(arrays, len(rows)), _map_problems(arrays, info, len(rows))
    ):
        found.problems.append((files[name], message, rows.start + local))


def _status_problems(arrays: dict[str, NDArray[Any]], rows: int) -> Iterator[tuple[str, str, int]]:
    status, errors = arrays["status"][:rows], arrays["errors"][:rows]
    for local, (value, raw) in enumerate(zip(status.tolist(), errors, strict=True)):
        text = raw.tobytes().rstrip(b"\0")
        if value not in (Status.DONE, Status.FAILED):
            yield "status", f"expected done ({Status.DONE}) or failed ({Status.FAILED}), found {value}", local
        elif (value == Status.FAILED) != bool(text):
            yield "errors", "a failed row without a reason" if not text else "a reason to fail, of a row that is done", local
        elif b"\0" in text or not _is_utf8(text):
            yield "errors", f"expected a text in UTF-8, found {text[:60]!r}", local


def _size_problems(arrays: dict[str, NDArray[Any]], rows: int) -> Iterator[tuple[str, str, int]]:
    if IMAGE_SIZE.name not in arrays:
        return
    done, sizes = arrays["status"][:rows] == Status.DONE, arrays[IMAGE_SIZE.name][:rows]
    for local in np.flatnonzero(sizes.any(axis=1) & ~done).tolist():
        yield IMAGE_SIZE.name, f"expected 0, 0 of a row that failed, found {sizes[local].tolist()}", local
    able = ((sizes >= 1) & (sizes <= MAX_IMAGE_SIDE)).all(axis=1) | ~sizes.any(axis=1)
    for local in np.flatnonzero(done & ~able).tolist():
        found = sizes[local].tolist()
        yield IMAGE_SIZE.name, f"expected a width and a height of 1 to {MAX_IMAGE_SIDE}, or 0, 0, found {found}", local


def _map_problems(arrays: dict[str, NDArray[Any]], info: StoreInfo, rows: int) -> Iterator[tuple[str, str, int]]:
    encoding = find_encoding(info.encoding, "")
    specs = encoding.arrays(info)
    maps = {spec.name: arrays[spec.name][:rows] for spec in specs}
    done = np.flatnonzero(arrays["status"][:rows] == Status.DONE)
    for local in np.flatnonzero(arrays["status"][:rows] == Status.FAILED).tolist():
        for spec in specs:
            if (maps[spec.name][local] != np.array(spec.fill, spec.numpy_dtype)).any():
                yield spec.name, "a map of a failed row", local
    picked = {name: values[done] for name, values in maps.items()}
    if encoding.check(picked, info) is None and encoding.check_closely(picked, info) is None:
        return
    for local in done.tolist():
        one = {name: values[local : local + 1] for name, values in maps.items()}
        problem = encoding.check(one, info) or encoding.check_closely(one, info)
        if problem is not None:
            yield specs[0].name, problem[1], local


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _require_memory(specs: tuple[ArraySpec, ...], commit: list[list[int]], info: StoreInfo) -> None:
    """Refuse what cannot be looked at in this machine: a commit, and files without content, may claim any size."""
    needed = sum(record[0] for record in commit) + info.shard_size * sum(spec.row_bytes for spec in specs)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there // 2:
        raise StoreTooLargeError(
            f"a shard of {info.shard_size:,} rows: expected at most {there // 2:,} bytes, half of this machine's memory, found "
            f"{needed:,}"
        )


def _key(spec: ArraySpec, shard: int) -> str:
    return f"{spec.name}/{spec.file_name(shard)}"


def _most(spec: ArraySpec, info: StoreInfo) -> int:
    """The bytes that one of a shard's files may take, by the format."""
    return largest_shard_file(spec, info.shard_size) if spec.by_row else largest_file(spec, info.shard_size)


def _without(key: str, error: Exception) -> str:
    return str(error).removeprefix(f"{key}: ")
