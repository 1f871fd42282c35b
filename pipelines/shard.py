"""A shard's spec to a finished shard: a plain function, the same in this process and in a cluster's workers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from labelstore.errors import OptionError, StoreMismatchError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, load_annotator
from labelstore.pipelines.maps import OnRows, Stopwatch, fill_rows, map_batches
from labelstore.pipelines.plan import JobSpec, ShardReport, ShardSpec
from labelstore.pipelines.store import ShardWriter


def annotate_shard(spec: ShardSpec, on_rows: OnRows | None = None) -> ShardReport:
    """Make the label maps of a shard's images and commit them.

    Images that cannot be annotated become failed rows with a reason; everything else that goes wrong is raised and leaves
    the shard pending.
    """
    job, watch = spec.job, Stopwatch()
    annotator = cached_annotator(job.annotator, job.device)
    writer = _open_writer(job)
    _require_same_annotator(annotator, writer)
    ids = writer.image_ids(spec.shard)
    arrays = writer.empty_rows(spec.shard)
    failures: list[tuple[str, str]] = []
    with torch_threads(job.threads), ThreadPoolExecutor(job.decode_threads, "decode") as executor:
        paths = [Path(job.images_root, image_id) for image_id in ids]
        for batch in map_batches(paths, annotator, writer.info, job.batch_size, executor, watch):
            fill_rows(arrays, batch)
            failed = [(ids[batch.start + at], error) for at, error in enumerate(batch.errors) if error]
            failures.extend(failed)
            if on_rows is not None:
                on_rows(len(batch.errors) - len(failed), len(failed))
    with watch.stage("write"):
        writer.write(spec.shard, arrays)
    return ShardReport(spec.shard, len(ids), tuple(failures), dict(watch.seconds))


@functools.lru_cache(maxsize=1)
def _open_writer(job: JobSpec) -> ShardWriter:
    return ShardWriter(job.store)


_LOADING = threading.Lock()
_LOADED: dict[tuple[AnnotatorSpec, str], Annotator] = {}


def cached_annotator(spec: AnnotatorSpec, device: str) -> Annotator:
    """Load an annotator once a process, whether it is asked for in short or by the full name that a store records."""
    with _LOADING:
        if (spec, device) not in _LOADED:
            annotator = load_annotator(spec, resolve_device(device))
            full = replace(spec, model=annotator.info.name, image_size=annotator.info.preprocessing.input_size)
            _LOADED[spec, device] = _LOADED[full, device] = annotator
        return _LOADED[spec, device]


def keep_annotators(*kept: Annotator) -> None:
    """Let go of all other loaded annotators, and of their memory."""
    for key, annotator in list(_LOADED.items()):
        if annotator not in kept:
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


def _require_same_annotator(annotator: Annotator, writer: ShardWriter) -> None:
    expected, found = writer.info.annotator.weights_sha256, annotator.info.weights_sha256
    if expected != found or writer.info.map_size != annotator.info.map_size:
        raise StoreMismatchError(
            f"{writer.location}: expected the annotator that the store was begun with (weights {expected[:12]}, map "
            f"{writer.info.map_size}), found {annotator.info.name} (weights {found[:12]}, map {annotator.info.map_size})"
        )
