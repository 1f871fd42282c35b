"""Writes stores: creation, then shard after shard, each sealed by its commit.

The order of writes is what makes a store trustworthy. Creation: arrays and ids first, the group's attributes last. A shard:
its old commit away, its files, all of it on the disk, and only then the new commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays
from labelstore.errors import DamagedError, FormatError, StoreBusyError, StoreMismatchError, StoreWriteError
from labelstore.ids import ImageIds
from labelstore.pipelines.claims import Claim
from labelstore.pipelines.files import commit_record, encode_file
from labelstore.pipelines.folder import remove_cut_off_creation
from labelstore.pipelines.free_place import find_remains
from labelstore.pipelines.group_file import GROUP, GroupFile, GuardedSink, open_group_file, withdrawn_on_failure
from labelstore.pipelines.index import index_columns, write_index
from labelstore.pipelines.metadata import fresh_arrays, group_json, write_metadata
from labelstore.pipelines.sink import open_sink, sync_tree
from labelstore.pipelines.store_files import store_files
from labelstore.schema import UNFINISHED, ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage import Source, is_blank, local_path, open_source, store_arrays
from labelstore.storage.documents import MOST_BYTES
from labelstore.storage.metadata import commits_spec
from labelstore.storage.origin import ids_seal, origin_of

_SHARDS_AT_ONCE = 256


def create_store(location: str, info: StoreInfo, ids: NDArray[np.uint8], targets: NDArray[np.int32]) -> StoreInfo:
    """Create an empty store, every row pending; return what it says of itself, its new id among that.

    Parameters
    ----------
    ids
        uint8 ``[N, L]``, as `labelstore.ids.pack_ids` makes them.
    targets
        int32 ``[N]``.

    Raises
    ------
    FormatError
        There is something else at ``location``; nothing is overwritten but a store whose creation was cut off. Or the store
        would be one that no reader opens.
    StoreWriteError
    """
    StoreInfo.from_attributes(info.to_attributes(), location)  # what no reader would open is not begun
    info = replace(info, store_id=uuid.uuid4().hex)
    with writing(location):
        _require_free(location, info)
        path, group, arrays = local_path(location), _begin(location), fresh_arrays(info)
        if path is not None:
            for name in arrays:
                (path / name).mkdir(exist_ok=True)
        with withdrawn_on_failure(location, group, group_json({UNFINISHED: True})):
            sink = GuardedSink(open_sink(location), group)
            write_index(sink, info, index_columns(info, ids, targets), range(info.num_shards))
            if path is not None:
                sync_tree(path)
            write_metadata(sink, group, {}, info, arrays)
    return info


class ShardWriter:
    """Writes shards into a store that exists. Threads and processes may write different shards at the same time."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.source, self.info = open_source(location)
        """What reads the store: of shards without a commit anew each time, of others as they were first found."""
        if not self.source.direct:
            raise FormatError(f"{location}: expected the codecs of docs/format.md, found others; this store can only be read")
        self._specs = committed_arrays(self.info, location)
        self._commits = commits_spec(self.info)
        self._group: bytes | None = None
        self._sink = open_sink(location)
        if any(self._key(spec, 0) != f"{spec.name}/{spec.file_name(0)}" for spec in store_arrays(self.info)):
            raise FormatError(f"{location}: expected files named as in docs/format.md; this store can only be read")

    def image_ids(self, shard: int) -> list[str]:
        """Return the ids of a shard's rows."""
        return list(ImageIds(self.source.index_rows(index_arrays(self.info)[0], shard), self.location))

    def ids_seal(self, shard: int) -> int:
        """Return the seal of the ids that a shard's rows have now (`labelstore.storage.origin.ids_seal`).

        Raises
        ------
        StoreMismatchError
            There is another store by now.
        """
        data = store_files(self.location).read(GROUP, MOST_BYTES)
        if data is None or data != self._group:
            self.source, info = open_source(self.location)
            if info.identity != self.info.identity:
                raise another_store(self.location)
            self._ids, self._group = index_arrays(info)[0], data
        return ids_seal(self.source.index_rows(self._ids, shard))

    def is_committed(self, shard: int) -> bool:
        """Whether a shard has a commit that its files match, looked at anew."""
        return is_committed(open_source(self.location)[0], shard)

    def empty_rows(self, shard: int) -> dict[str, NDArray[Any]]:
        """Return arrays for a shard's rows, filled as absent: what a failed row keeps of its map."""
        count = len(self.info.shard_rows(shard))
        return {spec.name: np.full((count, *spec.row_shape), spec.fill, spec.numpy_dtype) for spec in self._specs}

    def write(self, shard: int, arrays: Mapping[str, NDArray[Any]], seal: int | None = None) -> int:
        """Write all of a shard's arrays, and then its commit; return how many bytes that were.

        Parameters
        ----------
        arrays
            Every committed array by name, ``[rows of the shard, *row_shape]``.
        seal
            Of the ids that the rows were made for; None: of those that are there.

        Raises
        ------
        StoreMismatchError
            There is another store by now, or other ids; nothing is touched.
        StoreWriteError
            The disk is full or read-only; the shard stays pending.
        """
        rows = len(self.info.shard_rows(shard))
        for spec in self._specs:
            if len(arrays[spec.name]) != rows:
                raise ValueError(f"{spec.name}: expected the {rows} rows of shard {shard}, got {len(arrays[spec.name])}")
        files = {self._key(spec, shard): encode_file(spec, arrays[spec.name], self.info.shard_size) for spec in self._specs}
        return self._write_files(shard, files, seal)

    def write_encoded(self, shard: int, files: Mapping[str, bytes], seal: int | None = None) -> int:
        """Write a shard whose files are those of another store's shard, of the same arrays and as many rows; else as `write`.

        Parameters
        ----------
        files
            By the name of their array.
        """
        return self._write_files(shard, {self._key(spec, shard): files[spec.name] for spec in self._specs}, seal)

    def _write_files(self, shard: int, files: Mapping[str, bytes], seal: int | None) -> int:
        found = self.ids_seal(shard)
        if seal not in (None, found):
            raise StoreMismatchError(
                f"{self.location}: shard {shard} was made for other images than those whose ids are there now; it is not kept"
            )
        origin = [] if self.info.store_id is None else [origin_of(self.info, found)]
        record = np.array([[*map(commit_record, files.values()), *origin]], np.uint64)
        commit = {self._key(self._commits, shard): encode_file(self._commits, record, 1)}
        with writing(self.location):
            self.discard(shard)
            for group in (files, commit):
                self._sink.put(group)
                self._sink.flush(group)
        return sum(map(len, (*files.values(), *commit.values())))

    def discard(self, shard: int) -> None:
        """Remove a shard's commit, durably: from then on its rows are pending."""
        key = self._key(self._commits, shard)
        if self._sink.delete(key):
            self._sink.flush([key])

    def _key(self, spec: ArraySpec, shard: int) -> str:
        return self.source.file_key(spec, shard)


def another_store(location: str) -> StoreMismatchError:
    """Say that a store has gone since work for it was begun."""
    return StoreMismatchError(
        f"{location}: another store has been made here since this work was begun for the one that was; nothing of it is touched"
    )


def committed_shards(source: Source, info: StoreInfo, shards: Sequence[int]) -> Iterator[int]:
    """Yield those of some shards that have a commit that their files match; from a server many are read at the same time."""
    for start in range(0, len(shards), _SHARDS_AT_ONCE):
        some = np.array(shards[start : start + _SHARDS_AT_ONCE])
        try:
            yield from some[source.status(some * info.shard_size) != Status.PENDING].tolist()
        except DamagedError:
            yield from (shard for shard in some.tolist() if is_committed(source, shard))


def is_committed(source: Source, shard: int) -> bool:
    """Whether a shard has a commit that its files match."""
    try:
        return source.is_committed(shard)
    except DamagedError:
        return False


def _begin(location: str) -> GroupFile:
    """Write the group's file that says that a creation is under way: the one run that has written it goes on."""
    path, group = local_path(location), open_group_file(location)
    beginning = group_json({UNFINISHED: Claim.new().to_attribute()})
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    remains = find_remains(location, group) if path is None else []
    try:
        group.replace(beginning) if group.read() is not None else group.create(beginning)
    except FileExistsError:
        raise StoreBusyError(f"{location}: another run has begun this store at this moment; wait for it") from None
    sink = open_sink(location)
    for key in remains:
        sink.delete(key)
    return group


def _require_free(location: str, info: StoreInfo) -> None:
    """Refuse to overwrite anything but the remains of a creation that was cut off, and remove these."""
    path = local_path(location)
    if path is None or not path.exists():
        return
    if not (path.is_dir() and is_blank(path)):
        try:
            attributes = dict(zarr.open_group(location, mode="r").attrs)
        except (FileNotFoundError, ValueError, OSError):
            attributes = {}
        if UNFINISHED not in attributes:
            raise FormatError(f"{location}: expected nothing or a label store, found something else; choose another --store")
    remove_cut_off_creation(path, info)


@contextmanager
def writing(location: str) -> Iterator[None]:
    """Turn what the operating system says into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreWriteError):
            raise
        reason = error.strerror or str(error)
        raise StoreWriteError(
            f"{location}: cannot be written: {reason}. What is committed is kept; put this right and run the same command again"
        ) from error
