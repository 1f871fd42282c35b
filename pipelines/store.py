"""Writes stores: creation, then shard after shard, each sealed by its commit.

The order of writes is what makes a store trustworthy. Creation: arrays and ids first, the group's attributes last. A shard:
its old commit away, its files, all of it on the disk, and only then the new commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.encodings import committed_arrays
from labelstore.errors import DamagedError, FormatError, StoreWriteError
from labelstore.ids import ImageIds
from labelstore.pipelines.arrays import array_json, create_array
from labelstore.pipelines.files import commit_record, encode_file
from labelstore.pipelines.folder import remove_cut_off_creation
from labelstore.pipelines.index import index_columns, write_index
from labelstore.pipelines.metadata import write_metadata
from labelstore.pipelines.sink import open_sink, sync_tree
from labelstore.schema import UNFINISHED, ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage import Source, is_blank, local_path, open_source, store_arrays
from labelstore.storage.metadata import array_grid, commits_spec
from labelstore.storage.patient_store import open_place

_SHARDS_AT_ONCE = 256


def create_store(location: str, info: StoreInfo, ids: NDArray[np.uint8], targets: NDArray[np.int32]) -> None:
    """Create an empty store: every row pending.

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
    with writing(location):
        _require_free(location, info)
        path = local_path(location)
        group = zarr.create_group(open_place(location), overwrite=path is None, attributes={UNFINISHED: True})
        for spec in store_arrays(info):
            create_array(group, spec, *array_grid(spec, info))
        write_index(open_sink(location), info, index_columns(info, ids, targets), range(info.num_shards))
        if path is not None:
            sync_tree(path)
        write_metadata(open_sink(location), {}, info, {spec.name: array_json(group, spec.name) for spec in store_arrays(info)})


class ShardWriter:
    """Writes shards into a store that exists. Threads and processes may write different shards at the same time."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.source, self.info = open_source(location)
        """What reads the store: of shards without a commit anew each time, of others as they were first found."""
        if not self.source.direct:
            raise FormatError(f"{location}: expected the codecs of docs/format.md, found others; this store can only be read")
        self._specs = committed_arrays(self.info, location)
        self._commits = commits_spec(len(self._specs))
        self._sink = open_sink(location)
        if any(self._key(spec, 0) != f"{spec.name}/{spec.file_name(0)}" for spec in store_arrays(self.info)):
            raise FormatError(f"{location}: expected files named as in docs/format.md; this store can only be read")

    def image_ids(self, shard: int) -> list[str]:
        """Return the ids of a shard's rows."""
        return list(ImageIds(self.source.index_rows(index_arrays(self.info)[0], shard), self.location))

    def is_committed(self, shard: int) -> bool:
        """Whether a shard has a commit that its files match, looked at anew."""
        return is_committed(open_source(self.location)[0], shard)

    def empty_rows(self, shard: int) -> dict[str, NDArray[Any]]:
        """Return arrays for a shard's rows, filled as absent: what a failed row keeps of its map."""
        count = len(self.info.shard_rows(shard))
        return {spec.name: np.full((count, *spec.row_shape), spec.fill, spec.numpy_dtype) for spec in self._specs}

    def write(self, shard: int, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Write all of a shard's arrays, and then its commit; return how many bytes that were.

        Parameters
        ----------
        arrays
            Every committed array by name, ``[rows of the shard, *row_shape]``.

        Raises
        ------
        StoreWriteError
            The disk is full or read-only; the shard stays pending.
        """
        rows = len(self.info.shard_rows(shard))
        for spec in self._specs:
            if len(arrays[spec.name]) != rows:
                raise ValueError(f"{spec.name}: expected the {rows} rows of shard {shard}, got {len(arrays[spec.name])}")
        files = {self._key(spec, shard): encode_file(spec, arrays[spec.name], self.info.shard_size) for spec in self._specs}
        return self._write_files(shard, files)

    def write_encoded(self, shard: int, files: Mapping[str, bytes]) -> int:
        """Write a shard whose files are those of another store's shard, of the same arrays and as many rows; else as `write`.

        Parameters
        ----------
        files
            By the name of their array.
        """
        return self._write_files(shard, {self._key(spec, shard): files[spec.name] for spec in self._specs})

    def _write_files(self, shard: int, files: Mapping[str, bytes]) -> int:
        record = np.array([[commit_record(data) for data in files.values()]], np.uint64)
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
