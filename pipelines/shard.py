"""A task's spec to finished shards: a plain function, the same in this process and in a cluster's workers."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from labelstore.errors import OptionError, StoreMismatchError
from labelstore.pipelines.annotators.ensemble import Ensemble, load_ensemble
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.loading import LoadSpec, load_batches
from labelstore.pipelines.maps import MapBatch, Mapper, Stopwatch, fill_rows
from labelstore.pipelines.plan import JobSpec, ShardReport, ShardSpec, TaskSpec
from labelstore.pipelines.store import ShardWriter
from labelstore.schema import StoreInfo

OnShardRows = Callable[[int, int, int], None]
"""Called with a shard, and how many more of its rows are done and failed."""


def annotate_shards(spec: TaskSpec, on_rows: OnShardRows | None = None) -> Iterator[ShardReport]:
    """Make the label maps of some shards' images; yield each shard's report when it is committed.

    Images that cannot be annotated become failed rows with a reason; everything else that goes wrong is raised and leaves
    its shard, and those after it, pending. Images are loaded, and shards written, while the annotators work on others.
    """
    job = spec.job
    annotators = cached_ensemble(job.annotators, job.device)
    writer = _open_writer(job)
    _require_same_annotator(annotators, writer)
    watch = Stopwatch()
    mapper = Mapper(annotators, writer.info, watch)
    sizes = [_batch_sizes(len(shard.places), job.batch_size) for shard in spec.shards]
    places = [place for shard in spec.shards for place in shard.places]
    loaded = load_batches(places, [size for each in sizes for size in each], _load_spec(annotators, writer.info, job))
    batches = mapper.map(watch.timed("wait for images", loaded))
    writing: Future[ShardReport] | None = None
    with torch_threads(job.threads), ThreadPoolExecutor(1, "write") as executor:
        for shard, each in zip(spec.shards, sizes, strict=True):
            report, arrays = _annotate(shard, itertools.islice(batches, len(each)), writer, on_rows)
            report = replace(report, notes=tuple(mapper.notes))
            if writing is not None:
                yield writing.result()
            writing = executor.submit(_write, report, arrays, writer, watch)
        if writing is not None:
            yield writing.result()


def _annotate(
    spec: ShardSpec, batches: Iterator[MapBatch], writer: ShardWriter, on_rows: OnShardRows | None
) -> tuple[ShardReport, dict[str, NDArray[Any]]]:
    ids, arrays = writer.image_ids(spec.shard), writer.empty_rows(spec.shard)
    failures: list[tuple[str, str]] = []
    start = 0
    for batch in batches:
        fill_rows(arrays, start, batch)
        failed = [(ids[start + at], error) for at, error in enumerate(batch.errors) if error]
        failures.extend(failed)
        start += len(batch.errors)
        if on_rows is not None:
            on_rows(spec.shard, len(batch.errors) - len(failed), len(failed))
    return ShardReport(spec.shard, len(ids), tuple(failures), {}), arrays


def _write(report: ShardReport, arrays: dict[str, NDArray[Any]], writer: ShardWriter, watch: Stopwatch) -> ShardReport:
    with watch.stage("write"):
        writer.write(report.shard, arrays)
    return replace(report, seconds=watch.take())


def _batch_sizes(rows: int, batch_size: int) -> list[int]:
    return [min(batch_size, rows - start) for start in range(0, rows, batch_size)]


def _load_spec(annotators: Ensemble, info: StoreInfo, job: JobSpec) -> LoadSpec:
    return LoadSpec(annotators.inputs, info.exif, job.decode_threads, job.decode_ahead, info.decoder == "nvjpeg")


@functools.lru_cache(maxsize=1)
def _open_writer(job: JobSpec) -> ShardWriter:
    return ShardWriter(job.store)


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
        replace(member, model=info.name, image_size=info.preprocessing.input_size)
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


def _require_same_annotator(annotators: Ensemble, writer: ShardWriter) -> None:
    expected, found = writer.info.annotator.weights_sha256, annotators.info.combined
    if expected != found.weights_sha256 or writer.info.map_size != found.map_size:
        raise StoreMismatchError(
            f"{writer.location}: expected the annotator that the store was begun with (weights {expected[:12]}, map "
            f"{writer.info.map_size}), found {found.name} (weights {found.weights_sha256[:12]}, map {found.map_size})"
        )
