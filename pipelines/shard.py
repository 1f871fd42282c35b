"""A task's spec to finished shards: a plain function, the same in this process and in a cluster's workers."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import torch

from labelstore.errors import OptionError, StoreMismatchError
from labelstore.pipelines.annotators.ensemble import Ensemble, load_ensemble
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.loading import LoadedImage, LoadSpec, load_batches
from labelstore.pipelines.maps import MapBatch, Mapper, Stopwatch
from labelstore.pipelines.plan import JobSpec, ShardReport, ShardSpec, TaskSpec, TrialSpec
from labelstore.pipelines.records import file_sha256
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.pipelines.sources.places import Place
from labelstore.pipelines.writer import LabelMapWriter, open_writer
from labelstore.pixels import ReadRules
from labelstore.schema import StoreInfo

OnShardRows = Callable[[int, int, int], None]
"""Called with a shard, and how many more of its rows are done and failed."""


def annotate_shards(spec: TaskSpec, on_rows: OnShardRows | None = None) -> Iterator[ShardReport]:
    """Make the label maps of some shards' images; yield each shard's report when it is committed.

    A shard that is committed by now, because a worker that died had got that far, is not made again: its report is of what is
    stored. Images that cannot be annotated become failed rows with a reason; everything else that goes wrong is raised and
    leaves its shard, and those after it, pending. Images are loaded, and shards written, while the annotators work on others.
    """
    job = spec.job
    writer = _open_writer(job)
    stored = writer.stored_reports([shard.shard for shard in spec.shards])
    yield from stored
    shards = [shard for shard in spec.shards if shard.shard not in {report.shard for report in stored}]
    if not shards:
        return
    watch = Stopwatch()
    mapper = _mapper(job, writer, watch)
    sizes = [_batch_sizes(len(shard.places), job.batch_size) for shard in shards]
    places = [place for shard in shards for place in shard.places]
    converted = _Converted()
    batches = _batches(job, mapper, places, [size for each in sizes for size in each], converted)
    writing: Future[ShardReport] | None = None
    with torch_threads(job.threads), ThreadPoolExecutor(1, "write") as executor:
        for shard, each in zip(shards, sizes, strict=True):
            report, rows = _annotate(shard, itertools.islice(batches, len(each)), writer, on_rows)
            report = replace(report, notes=tuple(mapper.notes), converted=converted.take())
            if writing is not None:
                yield writing.result()
            writing = executor.submit(_write, report, rows, watch)
        if writing is not None:
            yield writing.result()


def try_rows(spec: TrialSpec, on_rows: OnShardRows | None = None) -> None:
    """Load and annotate images as `annotate_shards` does, and keep nothing of it."""
    mapper = _mapper(spec.job, _open_writer(spec.job), Stopwatch())
    sizes = _batch_sizes(len(spec.places), spec.job.batch_size)
    with torch_threads(spec.job.threads):
        for _ in _batches(spec.job, mapper, spec.places, sizes, _Converted()):
            if on_rows is not None:
                on_rows(spec.shard, 0, 0)


def _mapper(job: JobSpec, writer: LabelMapWriter, watch: Stopwatch) -> Mapper:
    annotators = cached_ensemble(job.annotators, job.device)
    require_same_annotator(annotators, writer.info, writer.location)
    return Mapper(annotators, writer.info, watch)


class _Converted:
    """Counts images of which 8 bits were made. Batches are loaded ahead: a shard's count may hold some of the next one's."""

    def __init__(self) -> None:
        self._count = 0

    def counted(self, batches: Iterator[list[LoadedImage]]) -> Iterator[list[LoadedImage]]:
        for batch in batches:
            self._count += sum(image.converted for image in batch)
            yield batch

    def take(self) -> int:
        count, self._count = self._count, 0
        return count


def _batches(
    job: JobSpec, mapper: Mapper, places: Sequence[Place], sizes: Sequence[int], converted: _Converted
) -> Iterator[MapBatch]:
    loaded = load_batches(places, sizes, _load_spec(mapper.annotators, mapper.info, job))
    return mapper.map(mapper.watch.timed("wait for images", converted.counted(loaded)))


def _annotate(
    spec: ShardSpec, batches: Iterator[MapBatch], writer: LabelMapWriter, on_rows: OnShardRows | None
) -> tuple[ShardReport, ShardRows]:
    rows = writer.shard(spec.shard, spec.ids_seal)
    start = 0
    for batch in batches:
        rows.put(start, batch.arrays, batch.errors, batch.crc32, batch.sizes)
        start += len(batch.errors)
        if on_rows is not None:
            failed = sum(map(bool, batch.errors))
            on_rows(spec.shard, len(batch.errors) - failed, failed)
    return ShardReport(spec.shard, len(rows), rows.failures(), {}), rows


def _write(report: ShardReport, rows: ShardRows, watch: Stopwatch) -> ShardReport:
    with watch.stage("write"):
        num_bytes = rows.commit()
    return replace(report, seconds=watch.take(), num_bytes=num_bytes)


def _batch_sizes(rows: int, batch_size: int) -> list[int]:
    return [min(batch_size, rows - start) for start in range(0, rows, batch_size)]


def _load_spec(annotators: Ensemble, info: StoreInfo, job: JobSpec) -> LoadSpec:
    return LoadSpec(annotators.inputs, ReadRules.of(info), job.decode_threads, job.decode_ahead, info.decoder == "nvjpeg")


@functools.lru_cache(maxsize=1)
def _open_writer(job: JobSpec) -> LabelMapWriter:
    return open_writer(job.store, job.identity)


_LOADING = threading.Lock()
_LOADED: dict[tuple[EnsembleSpec, str], Ensemble] = {}


def cached_ensemble(spec: EnsembleSpec, device: str) -> Ensemble:
    """Load annotators once a process, whether they are asked for in short or by the full names that a store records."""
    with _LOADING:
        if (spec, device) not in _LOADED:
            found = load_ensemble(spec, resolve_device(device))
            _LOADED[spec, device] = _LOADED[as_recorded(spec, found), device] = found
        return _LOADED[spec, device]


def load_annotators(spec: EnsembleSpec, device: str) -> None:
    """Have annotators at hand in this process before there is work."""
    cached_ensemble(spec, device)


def as_recorded(spec: EnsembleSpec, found: Ensemble) -> EnsembleSpec:
    """Return the spec by which a store's record of annotators asks for them again."""
    members = [
        replace(
            member,
            model=info.name,
            image_size=info.preprocessing.input_size,
            sha256=file_sha256(info),
            scores=None,
            recorded=info.scores,
        )
        for member, info in zip(spec.members, found.info.members, strict=True)
    ]
    how = found.info.members[0].preprocessing
    members[0] = replace(members[0], mean=how.mean, std=how.std, interpolation=how.interpolation)
    return replace(spec, members=tuple(members), precision=found.info.precision)


def keep_annotators(*kept: Ensemble) -> None:
    """Let go of all other loaded annotators, and of their memory."""
    for key, annotators in list(_LOADED.items()):
        if annotators not in kept:
            del _LOADED[key]


def resolve_device(device: str) -> str:
    """Turn ``auto`` into what is here.

    Raises
    ------
    OptionError
        ``cuda`` was asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if device.startswith("cuda") and not cuda:
        raise OptionError("--device cuda: no CUDA device is usable here; use --device cpu or auto")
    return ("cuda" if cuda else "cpu") if device == "auto" else device


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch with a number of threads: the same count gives the same bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_same_annotator(annotators: Ensemble, info: StoreInfo, location: str) -> None:
    """Refuse to mix the label maps of two annotators.

    Raises
    ------
    StoreMismatchError
    """
    expected, found = info.annotator.weights_sha256, annotators.info.combined
    if expected != found.weights_sha256 or info.map_size != found.map_size:
        raise StoreMismatchError(
            f"{location}: expected the annotator that the store was begun with (weights {expected[:12]}, map "
            f"{info.map_size}), found {found.name} (weights {found.weights_sha256[:12]}, map {found.map_size})"
        )
