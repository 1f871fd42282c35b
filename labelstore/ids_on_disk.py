"""Image ids that are too many for memory: looked up in the store's files, a few of which are kept.

The rows of one run are in byte order of their ids, so a search by halves over the shards' first ids needs few of them. Nothing
relies on that order: an id that is not where it should be is looked for everywhere, once, before it counts as unknown.
"""

from __future__ import annotations

import difflib
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from labelstore.ids import LONGEST_COMPARED, IdTable, encode_ids
from labelstore.schema import StoreInfo, index_arrays
from labelstore.storage.base import Source

_KEPT_BYTES, _LEAST_KEPT = 2**26, 16
_COMPARED = 1000


class IdsOnDisk(IdTable):
    """The ids of a store, read a shard at a time; see `labelstore.ids.IdTable`.

    Up to 64 MB of them are kept, and of every shard that was looked into the first id.

    Raises
    ------
    DamagedError
        The last shard's ids are not there.
    """

    def __init__(self, source: Source, info: StoreInfo) -> None:
        super().__init__(source.where, info.id_bytes)
        self._source, self._info = source, info
        self._spec = index_arrays(info)[0]
        self._most = max(_KEPT_BYTES // (info.shard_size * info.id_bytes), _LEAST_KEPT)
        self._kept: OrderedDict[int, NDArray[np.bytes_]] = OrderedDict()
        self._first: dict[int, bytes] = {}
        self._in_order = False
        """Known only when all have been seen."""
        self._read(info.num_shards - 1)  # a store that claims more rows than it has is refused at once

    def __len__(self) -> int:
        return self._info.num_rows

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self._at(each) for each in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row}: expected 0..{len(self) - 1}")
        return self._at(int(row) % len(self))

    def __iter__(self) -> Iterator[str]:
        size = self._info.shard_size
        for shard in range(self._info.num_shards):
            ids = self._shard(shard)
            rows = min(size, len(self) - shard * size)
            yield from map(self._text, itertools.chain(ids, itertools.repeat(b"", rows - len(ids))))

    def blocks(self) -> Iterator[tuple[int, NDArray[np.bytes_]]]:
        """See `labelstore.ids.IdTable.blocks`; a shard each, none of them kept."""
        for shard in range(self._info.num_shards):
            yield shard * self._info.shard_size, self._read(shard)

    def find(self, keys: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """See `labelstore.ids.IdTable.find`."""
        rows = np.zeros(len(keys), np.int64)
        known = np.zeros(len(keys), np.bool_)
        encoded = enumerate(encode_ids(keys))
        possible = {place: raw for place, raw in encoded if raw and len(raw) <= self._width and b"\0" not in raw}
        for place, raw in sorted(possible.items(), key=lambda item: item[1]):  # neighbours are in the same shard
            row = self._search(raw)
            if row is not None:
                rows[place], known[place] = row, True
        missing = {place: raw for place, raw in possible.items() if not known[place]}
        if missing and not self._in_order:
            for place, row in self._scan(missing):
                rows[place], known[place] = row, True
        return rows, known

    def similar(self, key: str, most: int = 3) -> list[str]:
        """See `labelstore.ids.IdTable.similar`; among those that lie where it would."""
        raw = encode_ids([key])[0][: self._width]
        if len(key) > LONGEST_COMPARED:
            return []
        near: list[str] = []
        for shards in self._runs():
            shard = self._shard_of(raw, shards)
            ids = np.concatenate([self._shard(each) for each in (shard, shard + 1) if each in shards])
            place = int(np.searchsorted(ids, raw))
            near += map(self._text, ids[max(place - _COMPARED // 2, 0) : place + _COMPARED // 2])
        return difflib.get_close_matches(key, near, most)

    def _at(self, row: int) -> str:
        shard, local = divmod(row, self._info.shard_size)
        ids = self._shard(shard)
        return self._text(ids[local]) if local < len(ids) else ""

    def _runs(self) -> Iterator[range]:
        """The shards of each run that has added rows."""
        size = self._info.shard_size
        for extent in self._info.all_extents:
            yield range(extent.start // size, -(-extent.stop // size))

    def _search(self, raw: bytes) -> int | None:
        """Where an id is if all are in order; None if it is not there."""
        for shards in self._runs():
            shard = self._shard_of(raw, shards)
            ids = self._shard(shard)
            local = int(np.searchsorted(ids, raw))
            if local < len(ids) and ids[local] == raw:
                return int(shard * self._info.shard_size + local)
        return None

    def _shard_of(self, raw: bytes, shards: range) -> int:
        """The last shard that begins with this id or a smaller one."""
        low, high = shards.start, shards.stop
        while high - low > 1:
            middle = (low + high) // 2
            if self._first_of(middle) <= raw:
                low = middle
            else:
                high = middle
        return low

    def _first_of(self, shard: int) -> bytes:
        first = self._first.get(shard)
        return bytes(self._shard(shard)[0]) if first is None else first

    def _scan(self, wanted: dict[int, bytes]) -> Iterator[tuple[int, int]]:
        """Look for ids in all shards; yield the place of each that is there, and its row."""
        sought = np.array(sorted(set(wanted.values())), dtype=f"S{self._width}")
        in_order = True
        for shards in self._runs():
            last = b""
            for shard in shards:
                ids = self._read(shard)
                in_order = in_order and bool(last < ids[0] and (ids[:-1] < ids[1:]).all())
                last = bytes(ids[-1])
                for local in np.flatnonzero(np.isin(ids, sought)).tolist():
                    row, raw = shard * self._info.shard_size + local, ids[local]
                    yield from ((place, row) for place, each in wanted.items() if each == raw)
        self._in_order = in_order

    def _shard(self, shard: int) -> NDArray[np.bytes_]:
        """A shard's ids, read or kept. Two threads may both read it: what they keep is equal."""
        found = self._kept.get(shard)
        if found is None:
            found = self._read(shard)
            self._first[shard] = bytes(found[0])
            self._kept[shard] = found
            while len(self._kept) > self._most:
                try:
                    self._kept.popitem(last=False)
                except KeyError:  # another thread was quicker
                    break
        return found

    def _read(self, shard: int) -> NDArray[np.bytes_]:
        matrix: NDArray[Any] = np.ascontiguousarray(self._source.index_rows(self._spec, shard))
        return matrix.view(f"S{self._width}")[:, 0]
