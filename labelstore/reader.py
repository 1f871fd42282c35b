"""`LabelMapReader`: label maps and soft labels out of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelstore.boxes import check_boxes
from labelstore.class_columns import check_class_map
from labelstore.encodings import SoftLabels, find_encoding
from labelstore.errors import MissingExtraError
from labelstore.fetch import RowFetcher
from labelstore.ids import IdTable
from labelstore.keys import resolve_keys
from labelstore.labelmap import LabelMap
from labelstore.pooling import check_temperature, pool_maps
from labelstore.records import AnnotatorRecord
from labelstore.schema import StoreInfo
from labelstore.storage import CachedSource, open_source
from labelstore.threads import check_threads

Keys = Sequence[str] | Sequence[int] | Sequence[str | int] | NDArray[Any]


class LabelMapReader:
    """Serves the label maps of a store, and the soft labels of crops pooled from them.

    May be used from several threads at once, pickled (for spawned workers) and forked, also after it has read: it keeps no
    threads and no event loop. The store may still be written to: rows appear when their shard is committed.

    Parameters
    ----------
    store
        A path, or a URL such as ``s3://bucket/labels.zarr``.

    threads
        How many threads may decode a batch at once. By default as many as there are cores for this process, four at most;
        one in a process that multiprocessing has started (a DataLoader's worker), whose siblings use the other cores.
    compiled
        Whether `pool` runs compiled by numba (the extra ``[fast]``), which is then loaded here (0.3 s). By default, where numba
        is installed.

    cache
        A folder in which maps are kept decoded, once read: all readers of the store on this machine share one file there,
        which stays for the next run. Best in memory (``/dev/shm``), else on a local disk. In a folder that is not this user's
        alone (mode 0700), ``labelstore-UID`` is made and used.
    cache_bytes
        What that file may grow to: the store's first rows that fit are kept. By default all, or what is free there.
    cache_dir
        A folder on a local disk, private as that of ``cache``, for a store behind a URL: shards are fetched whole when they are
        first touched, checked, and read from there by all processes of this user on this machine, and by the next run. (A store
        in a folder is read where it is.)
    cache_dir_bytes
        What those shards may take: what has no room is read from the server batch by batch. By default what is free there.

    Raises
    ------
    StoreNotFoundError
        Nothing is there (also a FileNotFoundError).
    FormatError
        What is there is no store, or of a newer format (also a ValueError).
    DamagedError
        What the store says of itself, or its table of ids, is not what was written (also an OSError).
    StoreTooLargeError
        There is no memory for what is kept of so many rows (also a MemoryError).
    CacheError
        A cache's folder cannot be used (also an OSError).
    MissingExtraError
        ``compiled=True`` without numba (also an ImportError).

    Examples
    --------
    >>> reader = LabelMapReader("labels.zarr")                                  # doctest: +SKIP
    >>> soft = reader.pool(["chelsea.png"], [[0.0, 0.0, 0.5, 1.0]])             # doctest: +SKIP
    """

    def __init__(
        self,
        store: str | Path,
        *,
        threads: int | None = None,
        compiled: bool | None = None,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        cache_dir: str | Path | None = None,
        cache_dir_bytes: int | None = None,
    ) -> None:
        source, info = open_source(store, cache_dir, cache_dir_bytes)
        if cache is not None:
            source = CachedSource(source, info, find_encoding(info.encoding, source.where).arrays(info), cache, cache_bytes)
        self.info: StoreInfo = info
        self._rows = RowFetcher(source, info, check_threads(threads))
        self._compiled = self._load_compiled() if compiled is not False else None
        if compiled and self._compiled is None:
            raise MissingExtraError("compiled=True needs numba: pip install 'labelstore[fast]'")
        self._rows.load_ids()  # cheap, and no batch has to wait for it; what claims more rows than it has is refused here

    def __len__(self) -> int:
        """Rows of the store, whatever their status."""
        return self.info.num_rows

    def __contains__(self, key: object) -> bool:
        """Whether an image id has a row; `status` tells whether that row holds a map."""
        return key in self.ids

    def __repr__(self) -> str:
        height, width = self.map_size
        return (
            f"<LabelMapReader {self._rows.where}: {len(self)} rows, {self.info.encoding} K={self.top_k}, "
            f"{height}x{width}, {self.num_classes} classes, {self.annotator.name}>"
        )

    @property
    def ids(self) -> IdTable:
        """All image ids by row, loaded on first use."""
        return self._rows.ids

    @property
    def targets(self) -> NDArray[np.int32]:
        """int32 ``[N]``: the folder's class where folders are labels (`info.target_names`), else -1."""
        return self._rows.targets()

    @property
    def num_classes(self) -> int:
        """C, the annotator's classes."""
        return self.info.num_classes

    @property
    def top_k(self) -> int:
        """K, the classes listed a location."""
        return self.info.top_k

    @property
    def map_size(self) -> tuple[int, int]:
        """``(H, W)``, the locations of a map."""
        return self.info.map_size

    @property
    def annotator(self) -> AnnotatorRecord:
        """The model that made the maps."""
        return self.info.annotator

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names, where the annotator knew them."""
        return self.info.class_names

    def __getitem__(self, key: str | int) -> LabelMap:
        """Return one label map ``[K, H, W]``, by image id or row. Raises as `read` does."""
        return self._rows.encoding.decode(self._rows.map(self._row(key)), self.info)

    def read(self, keys: Keys) -> LabelMap:
        """Return label maps ``[B, K, H, W]`` in the order of the keys.

        Parameters
        ----------
        keys
            Image ids or rows, a list or an array; a key may occur more than once.

        Raises
        ------
        KeysError, UnknownIdError, RowIndexError
            A key that names no row.
        PendingRowError, FailedRowError
            A row without a map; the message of the latter gives the reason.
        DamagedError
            Stored bytes that are not what was committed; never a wrong label.
        """
        return self._rows.label_maps(self._find(keys))

    def read_packed(self, keys: Keys) -> dict[str, NDArray[Any]]:
        """Return label maps as the store keeps them, decompressed and checked: what to send to another device.

        A third of the bytes of `read`, or a fifteenth; `labelstore.torch.pool` takes them. Of encoding ``topk``: ``classes``
        uint16 ``[B, K, H, W]``, ``scores`` uint8 ``[B, K, H, W]`` (rank gaps) and ``score_range`` float32 ``[B, 2]``. Of
        encoding ``spectral``: ``scales`` float32 ``[B, 3]``, ``classes`` uint16 and ``means`` uint8 ``[B, M]``, ``weights``
        int8 ``[B, P, R]``, ``patterns`` int8 ``[B, R, kh, kw]``. See docs/format.md. Raises as `read` does.
        """
        return self._rows.encoding.unpack(self._rows.maps(self._find(keys)), self.info)

    def pool(
        self, keys: Keys, boxes: ArrayLike, temperature: float = 1.0, class_map: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Return the soft labels of crops.

        Parameters
        ----------
        keys
            Image ids or rows, ``B`` of them.
        boxes
            ``[B, 4]``: each crop's ``(x1, y1, x2, y2)`` as fractions of the original image's width and height, x to the
            right, y down; ``x1 > x2`` for a mirrored crop. Clipped to the image.
        temperature
            Divides the pooled logits before the softmax.
        class_map
            ``[D]``: the store's class of each wanted column, where the columns are not to be the annotator's classes in
            their order; the softmax is over these alone. ``[D, G]``, or a list of lists: several classes a column, -1 after
            the last; their probabilities are added.

        Returns
        -------
        float32 ``[B, C]`` (``[B, D]``), each row sums to 1: RoIAlign of the dense map over the box, then softmax (Yun et
        al. 2021, section 3.2).

        Raises
        ------
        BoxError
            Boxes that are malformed or leave nothing inside the image.
        ClassMapError, OptionError
            A class map or temperature that cannot be used; else as `read`.
        """
        heat, columns = check_temperature(temperature), check_class_map(class_map, self.num_classes)
        rows = self._find(keys)
        checked = check_boxes(boxes, len(rows))
        compiled = self._compiled
        if compiled is None or columns is not None:
            return pool_maps(self._rows.encoding, self._rows.maps(rows), checked, self.info, heat, columns)
        soft = np.empty((len(rows), self.num_classes), np.float32)
        if len(rows) == 1:
            compiled(self._rows.maps(rows), checked, self.info, float(heat), soft)
        else:
            self._rows.each_part(rows, lambda part, maps: compiled(maps, checked[part], self.info, float(heat), soft[part]))
        return soft

    def status(self, keys: Keys | None = None) -> NDArray[np.uint8]:
        """Return what rows hold, as `Status` numbers; of all rows if no keys are given."""
        return self._rows.status(np.arange(len(self)) if keys is None else self._find(keys))

    def error(self, key: str | int) -> str:
        """Return why a row failed; empty if it did not."""
        return self._rows.error(self._row(key))

    def image_crc32(self, key: str | int) -> int:
        """Return the crc32 of the image file's bytes that a row was made from; 0 if they could not be read."""
        return int(self._rows.column("image_crc32", np.array([self._row(key)]))[0])

    def image_crc32s(self, keys: Keys) -> NDArray[np.uint32]:
        """Return `image_crc32` of many rows, uint32 ``[B]``."""
        found: NDArray[np.uint32] = self._rows.column("image_crc32", self._find(keys))
        return found

    def image_size(self, keys: Keys) -> NDArray[np.uint32]:
        """Return the sizes of the images that rows were made from, uint32 ``[B, 2]``.

        Each is (width, height) in pixels, of the image as the annotator saw it: turned upright where `info.exif` is ``apply``.
        ``(0, 0)`` where it is not known, also of rows that failed. `info.image_sizes` tells whether the store keeps sizes.

        Raises
        ------
        FormatError
            The store keeps none: it was made by an older version, or of maps that came without. Else as `image_crc32`.
        """
        found: NDArray[np.uint32] = self._rows.image_sizes(self._find(keys))
        return found

    def shard_seals(self) -> NDArray[np.uint32]:
        """Return the checksum of each shard's commit, uint32 ``[S]``: another one where the shard was made again. 0 for shards
        that have none, or whose `status` was not asked for."""
        return self._rows.shard_seals()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": self._compiled is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compiled = self._load_compiled() if state["_compiled"] else None

    def _load_compiled(self) -> SoftLabels | None:
        return self._rows.encoding.compiled()

    def _find(self, keys: Any) -> NDArray[np.int64]:
        return resolve_keys(keys, len(self), lambda: self.ids)

    def _row(self, key: str | int) -> int:
        if type(key) is int and 0 <= key < self.info.num_rows:
            return key
        if type(key) is str:
            return self._rows.ids.row(key)
        return int(self._find([key])[0])
