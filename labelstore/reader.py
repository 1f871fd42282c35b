"""`LabelMapReader`: label maps and soft labels out of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelstore.boxes import check_boxes
from labelstore.fetch import RowFetcher
from labelstore.ids import ImageIds
from labelstore.keys import resolve_keys
from labelstore.labelmap import LabelMap
from labelstore.pooling import softmax
from labelstore.schema import AnnotatorRecord, StoreInfo
from labelstore.storage import open_source

Keys = Sequence[str] | Sequence[int] | Sequence[str | int] | NDArray[Any]


class LabelMapReader:
    """Serves the label maps of a store, and the soft labels of crops pooled from them.

    May be used from several threads at once, pickled (for spawned workers) and forked, also after it has read: it keeps no
    threads and no event loop. The store may still be written to: rows appear when their shard is committed.

    Parameters
    ----------
    store
        A path, or a URL such as ``s3://bucket/labels.zarr``.

    Raises
    ------
    StoreNotFoundError
        Nothing is there (also a FileNotFoundError).
    FormatError
        What is there is no store, or of a newer format (also a ValueError).

    Examples
    --------
    >>> reader = LabelMapReader("labels.zarr")                                  # doctest: +SKIP
    >>> soft = reader.pool(["chelsea.png"], [[0.0, 0.0, 0.5, 1.0]])             # doctest: +SKIP
    """

    def __init__(self, store: str | Path) -> None:
        source, info = open_source(store)
        self.info: StoreInfo = info
        self._rows = RowFetcher(source, info)

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
    def ids(self) -> ImageIds:
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
        batch = self.read([key])
        return LabelMap(batch.classes[0], batch.scores[0])

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
        return self._rows.encoding.decode(self._rows.maps(self._find(keys)), self.info)

    def pool(self, keys: Keys, boxes: ArrayLike, temperature: float = 1.0) -> NDArray[np.float32]:
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

        Returns
        -------
        float32 ``[B, C]``, each row sums to 1: RoIAlign of the dense map over the box, then softmax (Yun et al. 2021,
        section 3.2).

        Raises
        ------
        BoxError
            Boxes that are malformed or leave nothing inside the image; else as `read`.
        """
        rows = self._find(keys)
        checked = check_boxes(boxes, len(rows))
        return softmax(self._rows.encoding.pool(self._rows.maps(rows), checked, self.info), temperature)

    def status(self, keys: Keys | None = None) -> NDArray[np.uint8]:
        """Return what rows hold, as `Status` numbers; of all rows if no keys are given."""
        return self._rows.status(np.arange(len(self)) if keys is None else self._find(keys))

    def error(self, key: str | int) -> str:
        """Return why a row failed; empty if it did not."""
        return self._rows.error(self._row(key))

    def image_crc32(self, key: str | int) -> int:
        """Return the crc32 of the image file's bytes that a row was made from; 0 if they could not be read."""
        return int(self._rows.column("image_crc32", self._row(key)))

    def _find(self, keys: Any) -> NDArray[np.int64]:
        return resolve_keys(keys, len(self), lambda: self.ids)

    def _row(self, key: str | int) -> int:
        return int(self._find([key])[0])
