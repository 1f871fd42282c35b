"""Loaded images in, the arrays of their label maps out: the compute of a shard, without a store and without an engine.

Batches are fixed by row: a failed image leaves a black square in its place, so that what its neighbours get does not depend on
it. On a GPU the forward pass of the next batches is under way while one is encoded and brought back.
"""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelstore.pipelines.annotators.ensemble import Ensemble
from labelstore.pipelines.device_decode import decode_on_device
from labelstore.pipelines.encoders import encode, is_usable
from labelstore.pipelines.loading import LoadedImage
from labelstore.schema import StoreInfo

_IN_FLIGHT = 2
_NOT_FINITE = "the annotator's logits are not finite"
T = TypeVar("T")
Forwarded = tuple[Tensor, list[str], torch.cuda.Event | None]
"""Logits, why images could not be decoded on the device, and what tells that the logits are there."""
Encoded = tuple[dict[str, NDArray[Any]], list[str]]
"""Arrays, and each row's problem."""


@dataclass
class MapBatch:
    """The rows of one batch: the encoding's arrays, by name, and what became of each row ('' where it is done); the crc32 of
    each image's file, and its size, ``(width, height)``."""

    arrays: dict[str, NDArray[Any]]
    errors: list[str]
    crc32: list[int]
    sizes: list[tuple[int, int]]


@dataclass
class Stopwatch:
    """Adds up seconds by stage. Thread-safe."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return the seconds, and begin anew."""
        with self._lock:
            seconds, self.seconds = self.seconds, defaultdict(float)
        return dict(seconds)

    def timed(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        """Yield items, charging the wait for them to a stage."""
        while True:
            with self.stage(name):
                item = next(items, None)
            if item is None:
                return
            yield item


class Mapper:
    """Makes label maps of batches of images, for a store.

    Out of memory: the batch is halved, and so are those that follow; `notes` says so. For one thread.
    """

    def __init__(self, annotators: Ensemble, info: StoreInfo, watch: Stopwatch) -> None:
        self.annotators = annotators
        self.info = info
        self.watch = watch
        self.notes: list[str] = []
        self._on_gpu = annotators.device.type == "cuda"
        self._most = 2**31
        self._copying: torch.cuda.Stream | None = None
        self._encoding: torch.cuda.Stream | None = None

    def map(self, batches: Iterable[list[LoadedImage]]) -> Iterator[MapBatch]:
        """Yield the label maps of batches, in order."""
        most = _IN_FLIGHT if self._on_gpu else 0
        waiting: deque[tuple[list[LoadedImage], Future[Encoded]]] = deque()
        one_core = None if self._on_gpu else functools.partial(torch.set_num_threads, 1)  # of that thread alone
        with ThreadPoolExecutor(1, "forward") as forward, ThreadPoolExecutor(1, "encode", one_core) as encoder:
            try:
                for images in batches:  # on the CPU a batch is encoded while the next one is decoded: there cores are idle
                    while len(waiting) > most:
                        yield self._finished(*waiting.popleft())
                    logits = forward.submit(self._forward, images) if self._on_gpu else _done(self._forward, images)
                    waiting.append((images, encoder.submit(self._encode_after, logits)))
                while waiting:
                    yield self._finished(*waiting.popleft())
            finally:
                for _, future in waiting:
                    future.cancel()

    def _finished(self, images: list[LoadedImage], found: Future[Encoded]) -> MapBatch:
        """A batch's maps, in one piece or in as many as memory allows."""
        with self.watch.stage("annotate"):
            arrays, problems = self._unless_out_of_memory(found.result, len(images)) or self._in_pieces(images)
        errors = [image.error or problem for image, problem in zip(images, problems, strict=True)]
        return MapBatch(arrays, errors, [image.crc32 for image in images], [image.size for image in images])

    def _in_pieces(self, images: list[LoadedImage]) -> Encoded:
        pieces: list[Encoded] = []
        start = 0
        while start < len(images):
            piece = images[start : start + self._most]
            made = self._unless_out_of_memory(functools.partial(self._at_once, piece), len(piece))
            if made is not None:
                pieces.append(made)
                start += len(piece)
        arrays = {name: np.concatenate([piece[0][name] for piece in pieces]) for name in pieces[0][0]}
        return arrays, [problem for piece in pieces for problem in piece[1]]

    def _unless_out_of_memory(self, make: Callable[[], Encoded], count: int) -> Encoded | None:
        """Return what is made of so many images, None if there is no memory for them: then fewer are taken from now on."""
        try:
            return make()
        except Exception as error:
            if not is_out_of_memory(error) or count < 2:
                raise
            traceback.clear_frames(error.__traceback__)  # they hold on to tensors
        if count <= self._most:  # else a batch before this one has been the lesson
            self._halve(count)
        return None

    def _halve(self, count: int) -> None:
        self._most = count // 2
        self.notes.append(f"out of memory with {count} images at once: going on with {self._most}; see --batch-size")
        if self._on_gpu:
            torch.cuda.empty_cache()

    def _at_once(self, images: list[LoadedImage]) -> Encoded:
        logits, unreadable = self._logits(images)
        return self._encoded(logits, unreadable)

    def _forward(self, images: list[LoadedImage]) -> Forwarded:
        """Launch a batch's forward pass; on a GPU it is done when the event is."""
        if len(images) > self._most:
            raise torch.OutOfMemoryError("more images than have fitted before")
        with self.watch.stage("forward"):
            logits, unreadable = self._logits_beside(images) if self._on_gpu else self._logits(images)
        if not self._on_gpu:
            return logits, unreadable, None
        done = torch.cuda.Event()
        done.record()
        return logits, unreadable, done

    def _encode_after(self, forward: Future[Forwarded]) -> Encoded:
        """Encode a batch; on a GPU on a stream of its own: to wait for it is not to wait for the next forward pass."""
        logits, unreadable, done = forward.result()
        with self.watch.stage("encode"):
            if done is None:
                return self._encoded(logits, unreadable)
            self._encoding = self._encoding or torch.cuda.Stream(logits.device)
            self._encoding.wait_event(done)
            with torch.cuda.stream(self._encoding):
                logits.record_stream(self._encoding)
                return self._encoded(logits, unreadable)

    def _logits(self, images: list[LoadedImage]) -> tuple[Tensor, list[str]]:
        pixels, unreadable = to_pixels(images, self.annotators)
        return self.annotators.logits(pixels), unreadable

    def _logits_beside(self, images: list[LoadedImage]) -> tuple[Tensor, list[str]]:
        """`_logits`, the images brought over on a stream of their own: while the batch before is computed."""
        device = self.annotators.device
        self._copying = self._copying or torch.cuda.Stream(device)
        with torch.cuda.stream(self._copying):
            pixels, unreadable = to_pixels(images, self.annotators)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(self._copying)
        for part in pixels:
            part.record_stream(computing)
        return self.annotators.logits(pixels), unreadable

    def _encoded(self, logits: Tensor, unreadable: list[str]) -> Encoded:
        usable = is_usable(logits)
        logits = torch.where(usable[:, None, None, None], logits, 0.0)
        arrays = encode(logits, self.info)
        problems = ["" if good else _NOT_FINITE for good in usable.tolist()]
        return arrays, [first or second for first, second in zip(unreadable, problems, strict=True)]


def _done(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """What a thread would give, here and now."""
    future: Future[T] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU, had no memory for what was asked of it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def to_pixels(images: Sequence[LoadedImage], annotators: Ensemble) -> tuple[list[Tensor], list[str]]:
    """Return uint8 ``[B, S, S, 3]`` on the device for each of the inputs, black where an image failed; and why it did.

    JPEGs that were not decoded before are decoded here.
    """
    device, unreadable = annotators.device, [""] * len(images)
    pixels = []
    for number, how in enumerate(annotators.inputs):
        black = np.zeros((how.input_size, how.input_size, 3), np.uint8)
        stacked = torch.from_numpy(np.stack([black if image.pixels is None else image.pixels[number] for image in images]))
        if device.type == "cuda":
            stacked = stacked.pin_memory()
        pixels.append(stacked.to(device, non_blocking=True))
    waiting = [at for at, image in enumerate(images) if image.jpeg is not None]
    if waiting:
        for at, found in zip(waiting, decode_on_device([images[at].jpeg or b"" for at in waiting], annotators), strict=True):
            if isinstance(found, str):
                unreadable[at] = found
            else:
                for number, part in enumerate(found):
                    pixels[number][at] = part
    return pixels, unreadable
