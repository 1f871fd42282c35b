"""The rows of one shard on their way into a store: put in, or failed with a reason, and then committed together."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from labelstore.credentials import without_credentials
from labelstore.errors import MapsError
from labelstore.pipelines.encoders import encode, is_usable
from labelstore.pipelines.encoders.listed import encode_listed, find_problems
from labelstore.pipelines.scores import dense_logits_of, listed_logits_of
from labelstore.pipelines.store import ShardWriter
from labelstore.schema import ERROR_BYTES, IMAGE_SIZE, NO_CLASS, Status
from labelstore.units import (
    ENOUGH_LOCATIONS,
    LOG_SOFTMAX,
    SIGMOID,
    SOFTMAX,
    UNCLEAR,
    DenseUnit,
    ListedUnit,
    in_words,
)

_SHOWN = 3


class ShardRows:
    """The rows of a shard. A context manager: left without an exception it commits, else the shard stays pending.

    For one thread. Every row must be put or failed, each once, in any order.

    Parameters
    ----------
    writer
        Of the store.
    shard
        Its number.
    ids_seal
        Of the images that the rows are made for; by default of those whose ids are there now.
    """

    def __init__(self, writer: ShardWriter, shard: int, ids_seal: int | None = None) -> None:
        self.shard = shard
        self.info = writer.info
        self._writer = writer
        self._arrays = writer.empty_rows(shard)
        self._files: Mapping[str, bytes] | None = None
        self._ids_seal = writer.ids_seal(shard) if ids_seal is None else ids_seal
        self._scores = None if writer.info.imported is None else writer.info.imported.scores
        self._unit: DenseUnit | ListedUnit | None = None

    def __len__(self) -> int:
        return len(self.info.shard_rows(self.shard))

    @functools.cached_property
    def ids(self) -> list[str]:
        """The rows' image ids, read when they are wanted."""
        return self._writer.image_ids(self.shard)

    def __enter__(self) -> ShardRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.commit()

    def put_maps(self, start: int, classes: ArrayLike, scores: ArrayLike, image_crc32: Sequence[int] | None = None) -> None:
        """Put label maps that list their K best classes, from a row on. For stores of encoding ``topk``.

        Parameters
        ----------
        start
            The first map's place in the shard.
        classes
            Whole numbers ``[n, K, H, W]`` below the store's ``num_classes``, distinct at each location, in any order along K;
            65535: no class.
        scores
            ``[n, K, H, W]``: their logits, finite (or probabilities, in a store that was
            created for them). What classes that are not listed count as is the store's ``baseline``.
        image_crc32
            Of the image files' bytes, where known.

        Raises
        ------
        MapsError
            Other shapes or values; the message names the image.
        """
        listed, values = np.asarray(classes), np.asarray(scores)
        shape = (self.info.top_k, *self.info.map_size)
        for name, given in (("classes", listed), ("scores", values)):
            if given.ndim != 4 or given.shape[1:] != shape or len(given) != len(listed):
                raise MapsError(f"{name}: expected [n, {', '.join(map(str, shape))}], got {list(given.shape)}")
            if given.dtype.kind not in "iuf":
                raise MapsError(f"{name}: expected numbers, got {given.dtype}")
        if self.info.encoding != "topk":
            raise MapsError(f"expected dense logits for encoding {self.info.encoding} (put_logits), got the K best classes")
        self._refuse(start, find_problems(listed, values, self.info.num_classes))
        self.put(start, encode_listed(listed, self._logits(start, listed, values), self.info), [""] * len(listed), image_crc32)

    def put_logits(self, start: int, logits: ArrayLike, image_crc32: Sequence[int] | None = None) -> None:
        """Put dense logits ``[n, C, H, W]``, finite, from a row on, for the store to encode. Else as `put_maps`."""
        given = np.asarray(logits)
        values, problems = dense_logits_of(given, self._scores) if given.ndim == 4 else (np.array(given, np.float32), [])
        shape = (self.info.num_classes, *self.info.map_size)
        if values.ndim != 4 or values.shape[1:] != shape:
            raise MapsError(f"logits: expected [n, {', '.join(map(str, shape))}], got {list(values.shape)}")
        if self._scores is None:
            test = self._unit if isinstance(self._unit, DenseUnit) else DenseUnit()
            test.add(given if given.dtype == np.float16 else values)
            self._unit = test
            self._refuse_probabilities(ENOUGH_LOCATIONS)
        self._refuse(start, problems)
        dense = torch.from_numpy(np.array(values))
        self._refuse(start, ["" if good else "logits: expected finite numbers" for good in is_usable(dense).tolist()])
        self.put(start, encode(dense, self.info), [""] * len(values), image_crc32)

    def fail(self, row: int, reason: str) -> None:
        """Say why a row has no map; the row's place in the shard."""
        self.put(row, {}, [reason])

    def put(
        self,
        start: int,
        arrays: Mapping[str, NDArray[Any]],
        errors: Sequence[str],
        image_crc32: Sequence[int] | None = None,
        image_sizes: ArrayLike | None = None,
    ) -> None:
        """Put encoded maps, from a row on: the encoding's arrays, and why rows have failed ('' where they have not).

        Rows that failed keep the fill values. ``image_sizes`` are ``[n, 2]``, (width, height); not kept by a store without an
        array for them.
        """
        if start < 0 or start + len(errors) > len(self):
            raise MapsError(f"shard {self.shard}: expected rows 0 to {len(self) - 1}, got {start} to {start + len(errors) - 1}")
        part = slice(start, start + len(errors))
        again = np.flatnonzero(self._arrays["status"][part] != Status.PENDING)
        if len(again):
            raise MapsError(f"{self.ids[start + int(again[0])]}: expected each row once, got it twice")
        failed = np.array([bool(error) for error in errors], bool)
        self._arrays["status"][part] = np.where(failed, Status.FAILED, Status.DONE)
        if image_crc32 is not None:
            self._arrays["image_crc32"][part] = image_crc32
        if image_sizes is not None and self.info.image_sizes:
            self._arrays[IMAGE_SIZE.name][part] = np.where(failed[:, np.newaxis], 0, np.asarray(image_sizes).reshape(-1, 2))
        for row in np.flatnonzero(failed).tolist():
            reason = np.frombuffer(cut_text(errors[row]), np.uint8)
            self._arrays["errors"][start + row, : len(reason)] = reason
        for name, values in arrays.items():
            self._arrays[name][part][~failed] = values[~failed]

    def put_files(self, files: Mapping[str, bytes], errors: Sequence[str]) -> None:
        """Take the whole shard as a shard of another store has it, file by file: of the same arrays, and as many rows.

        Parameters
        ----------
        files
            By the name of their array.
        errors
            Why rows have failed ('' where they have not), as the files have it.
        """
        self.put(0, {}, errors)
        self._files = files

    @property
    def num_failed(self) -> int:
        """How many of the rows have failed by now."""
        return int((self._arrays["status"] == Status.FAILED).sum())

    def failures(self) -> tuple[tuple[str, str], ...]:
        """Return image id and reason of the rows that have failed by now."""
        failed = np.flatnonzero(self._arrays["status"] == Status.FAILED).tolist()
        return tuple((self.ids[row], bytes(self._arrays["errors"][row]).rstrip(b"\0").decode()) for row in failed)

    def commit(self) -> int:
        """Write the shard, durably; return how many bytes that were.

        Raises
        ------
        MapsError
            Rows that were neither put nor failed.
        StoreWriteError
            The disk is full or read-only; the shard stays pending.
        StoreMismatchError
            There is another store by now, or the rows are for other images; nothing of it is touched.
        """
        left = np.flatnonzero(self._arrays["status"] == Status.PENDING)
        if len(left):
            names = ", ".join(self.ids[row] for row in left[:_SHOWN])
            raise MapsError(f"shard {self.shard}: {len(left)} rows have neither a map nor a reason why not: {names}")
        self._refuse_probabilities(1)
        self._warn_of_unclear()
        if self._files is not None:
            return self._writer.write_encoded(self.shard, self._files, self._ids_seal)
        return self._writer.write(self.shard, self._arrays, self._ids_seal)

    def _logits(self, start: int, classes: NDArray[Any], scores: NDArray[Any]) -> NDArray[Any]:
        """Return logits of checked scores of listed classes."""
        if self._scores is None:
            test = self._unit if isinstance(self._unit, ListedUnit) else ListedUnit(self.info.num_classes)
            test.add(scores, classes != NO_CLASS)
            self._unit = test
            self._refuse_probabilities(ENOUGH_LOCATIONS)
        if self._scores is None or self._scores.floor is None or not len(scores):
            return scores
        pairs = zip(scores, classes, strict=True)
        found = [listed_logits_of(*pair, self._scores, self.info.num_classes) for pair in pairs]
        self._refuse(start, [problem for _, problem in found])
        return np.stack([logits for logits, _ in found])

    def _refuse_probabilities(self, least: int) -> None:
        """Refuse what was put so far if it is probabilities, by the scores of at least so many locations."""
        if self._unit is None or self._unit.locations < least:
            return
        found = self._unit.verdict()
        if found in (SOFTMAX, SIGMOID) or (found == LOG_SOFTMAX and self._leaves_classes_out):
            raise MapsError(
                f"shard {self.shard}: expected logits, got {in_words(found)}; labels of them would be wrong. Say which they "
                "are: LabelMapWriter.create(..., scores='probabilities'), or scores='logits'. "
                "(Of log-probabilities of all classes: baseline='absent_mean')"
            )

    @property
    def _leaves_classes_out(self) -> bool:
        """Whether classes that are not kept would count as 0, more than any logarithm of a probability."""
        if isinstance(self._unit, ListedUnit):
            return not self._unit.all_classes
        return self.info.baseline == "zero" and self.info.top_k < self.info.num_classes

    def _warn_of_unclear(self) -> None:
        if self._unit is not None and self._unit.verdict() == UNCLEAR:
            warnings.warn(
                f"shard {self.shard}: all scores lie in {self._unit.low:.4g}..{self._unit.high:.4g}; if these are "
                "probabilities, labels are wrong: LabelMapWriter.create(..., scores='probabilities'), or scores='logits'",
                stacklevel=3,
            )

    def _refuse(self, start: int, problems: Sequence[str]) -> None:
        for offset, problem in enumerate(problems):
            if problem:
                name = self.ids[start + offset] if start + offset < len(self) else f"row {start + offset}"
                raise MapsError(f"{name}: {problem}")


def cut_text(text: str) -> bytes:
    """Return a text without credentials as at most 160 bytes of UTF-8, cut between characters."""
    return without_credentials(text).encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore").encode()
