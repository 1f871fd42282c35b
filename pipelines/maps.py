"""Images in, the arrays of their label maps out: the compute of a shard, without a store and without an engine.

Images are read and resized by threads ahead of the annotator, at most a few batches of them. Batches are fixed by row: a
failed image leaves a black square in its place, so that what its neighbours get does not depend on it.
"""

from __future__ import annotations

import itertools
import stat
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators import Annotator, Preprocessing
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.images import image_pixels
from labelstore.schema import ERROR_BYTES, Status, StoreInfo

_BATCHES_AHEAD = 2
_LARGEST_LOGIT = 1e37  # differences of larger ones leave float32, in which scores are decoded
OnRows = Callable[[int, int], None]
"""Called with the numbers of rows just done and just failed."""


@dataclass(frozen=True)
class LoadedImage:
    """One image ready for the annotator, or why it is not. ``crc32`` is of the file's bytes, 0 if they were not read."""

    pixels: NDArray[np.uint8] | None
    crc32: int
    error: str = ""


@dataclass
class MapBatch:
    """The rows of one batch: the encoding's arrays, by name, and what became of each row ('' where it is done)."""

    start: int
    arrays: dict[str, NDArray[Any]]
    errors: list[str]
    crc32: list[int]


@dataclass
class Stopwatch:
    """Adds up seconds by stage."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def load_image(path: Path, how: Preprocessing, exif: str) -> LoadedImage:
    """Read, decode and resize one image; what goes wrong becomes its error."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return LoadedImage(None, 0, "cannot be read: not a file")  # a pipe would wait for ever
        data = path.read_bytes()
    except OSError as error:
        return LoadedImage(None, 0, f"cannot be read: {error.strerror}")
    try:
        return LoadedImage(image_pixels(data, how, exif), zlib.crc32(data))
    except ImageDecodeError as error:
        return LoadedImage(None, zlib.crc32(data), str(error))


def map_batches(
    paths: Sequence[Path],
    annotator: Annotator,
    info: StoreInfo,
    batch_size: int,
    executor: Executor,
    watch: Stopwatch,
) -> Iterator[MapBatch]:
    """Yield the label maps of images, a batch at a time, in order."""
    how = annotator.info.preprocessing
    ahead = _BATCHES_AHEAD * batch_size
    loaded = _in_order(executor, [partial(load_image, path, how, info.exif) for path in paths], ahead)
    for start in range(0, len(paths), batch_size):
        with watch.stage("wait for images"):
            images = list(itertools.islice(loaded, batch_size))
        with watch.stage("annotate"):
            arrays, problems = annotate_batch(images, annotator, info)
        errors = [image.error or problem for image, problem in zip(images, problems, strict=True)]
        yield MapBatch(start, arrays, errors, [image.crc32 for image in images])


def annotate_batch(
    images: Sequence[LoadedImage], annotator: Annotator, info: StoreInfo
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the encoding's arrays of a batch, and for each row why its logits cannot be kept, or ''."""
    logits = annotator.dense(to_input(images, annotator))
    finite = is_usable(logits)
    if not bool(finite.all()):
        logits = torch.where(finite[:, None, None, None], logits, torch.zeros_like(logits))
    bad = "the annotator's logits are not finite"
    return encode(logits, info), ["" if good else bad for good in finite.tolist()]


def is_usable(logits: Tensor) -> Tensor:
    """Whether each image's logits ``[B, C, H, W]`` can be kept, bool ``[B]``."""
    return (logits.abs() <= _LARGEST_LOGIT).flatten(1).all(dim=1)  # false for NaN too


def to_input(images: Sequence[LoadedImage], annotator: Annotator) -> Tensor:
    """Return the normalised input ``[B, 3, S, S]`` on the annotator's device; black where an image failed."""
    how = annotator.info.preprocessing
    black = np.zeros((how.input_size, how.input_size, 3), np.uint8)
    stacked = np.stack([black if image.pixels is None else image.pixels for image in images])
    batch = torch.from_numpy(stacked).to(annotator.device).permute(0, 3, 1, 2).to(torch.float32)
    mean = torch.tensor(how.mean, device=annotator.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(how.std, device=annotator.device).view(1, 3, 1, 1) * 255
    return (batch - mean) / std


def fill_rows(out: dict[str, NDArray[Any]], batch: MapBatch) -> None:
    """Put a batch into a shard's arrays; rows that failed keep the fill values and get their reason."""
    for offset, (error, crc32) in enumerate(zip(batch.errors, batch.crc32, strict=True)):
        row = batch.start + offset
        out["image_crc32"][row] = crc32
        out["status"][row] = Status.FAILED if error else Status.DONE
        if error:
            reason = np.frombuffer(cut_text(error), np.uint8)
            out["errors"][row, : len(reason)] = reason
        else:
            for name, values in batch.arrays.items():
                out[name][row] = values[offset]


def cut_text(text: str) -> bytes:
    """Return a text as at most 160 bytes of UTF-8, cut between characters."""
    return text.encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore").encode()


def _in_order(executor: Executor, calls: Sequence[Callable[[], LoadedImage]], ahead: int) -> Iterator[LoadedImage]:
    """Run calls on threads, at most ``ahead`` before the one that is asked for; yield their results in order."""
    waiting: deque[Future[LoadedImage]] = deque()
    try:
        for call in calls:
            waiting.append(executor.submit(call))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
