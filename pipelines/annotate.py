"""`annotate`: a folder of images to a store of label maps, from the first look to the summary."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelstore.agreement import Agreement, label_agreement
from labelstore.ids import pack_ids
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.cluster import local_cluster
from labelstore.pipelines.distance import DistanceSpec, measure_distance
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import JobSpec, ShardReport, pending_shards, tasks
from labelstore.pipelines.probe import SAMPLE_IMAGES, Probe, ProbeSpec, probe_annotator, spread
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.resources import Resources, keep_the_heap
from labelstore.pipelines.run import DaskEngine, Engine, SerialEngine
from labelstore.pipelines.settings import Settings, existing_store, new_store_info, require_decoder
from labelstore.pipelines.shard import load_annotators
from labelstore.pipelines.sources import ImagesSpec, Listing, list_images
from labelstore.pipelines.store import create_store
from labelstore.reader import LabelMapReader
from labelstore.schema import Status, StoreInfo
from labelstore.summary import StoreCounts, count_rows, failures_of

LISTED_FAILURES = 1000
_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Summary:
    """What a run made. ``failures`` are (image id, reason) of the store's failed rows, the first 1,000 of them;
    ``example_id`` is an image that is done, None if none is; ``agreement`` says how often the
    labels of this run's whole images are their folders'."""

    store: str
    info: StoreInfo
    counts: StoreCounts
    new_rows: int
    seconds: float
    failures: tuple[tuple[str, str], ...]
    example_id: str | None
    agreement: Agreement | None = None


@dataclass
class _Tally:
    """Rows of a run so far: finished shards, and what running ones have told."""

    observer: Observer
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0
    failed: int = 0
    notes: set[str] = field(default_factory=set)

    def progress(self, shard: int, done: int, failed: int) -> None:
        with self.lock:
            if shard in self.finished:  # what a worker told on the way may arrive after its report
                return
            self.running[shard] = (done, failed)
            self._tell()

    def finish(self, report: ShardReport) -> None:
        with self.lock:
            self.finished.add(report.shard)
            self.running.pop(report.shard, None)
            self.done += report.rows - len(report.failures)
            self.failed += len(report.failures)
            self._tell()
        for note in report.notes:
            if note not in self.notes:
                self.notes.add(note)
                self.observer.warning(note)

    def _tell(self) -> None:
        done, failed = (sum(counts) for counts in zip((self.done, self.failed), *self.running.values(), strict=True))
        self.observer.rows(done, failed)


def annotate(
    images: ImagesSpec | Path | str, store: str, settings: Settings, resources: Resources, observer: Observer
) -> Summary:
    """Make the label maps of all images of a source that the store does not hold yet.

    Parameters
    ----------
    images
        A folder, searched recursively, or another source.
    store
        Where the store is, or is to be.
    settings
        What the user chose; what is left open is as the store has it, else the default.

    Raises
    ------
    LabelStoreError
        Anything that stops the run. Committed shards are kept: the same call later makes what is missing.
    """
    start = time.perf_counter()
    source = images if isinstance(images, ImagesSpec) else ImagesSpec((str(images),))
    settings.encoding_choice()  # refused before anything is begun
    spec, exif = settings.ensemble_spec(resources.compiled), settings.chosen_exif(source.exif)
    observer.phase("looking for images")
    listing = list_images(source)
    found = existing_store(store, settings, listing)
    if found is not None and not found.pending:
        observer.plan(len(listing.ids), len(listing.ids))
        return summarise(store, found.info, 0, time.perf_counter() - start)
    require_decoder(found.info.decoder if found is not None else settings.chosen_decoder(), resources.device)
    with _engine(resources, observer) as engine:
        if found is None:
            info, pending = _create(engine, store, settings, listing, resources, observer, spec, exif)
        else:
            info, pending = found.info, found.pending
            observer.phase(f"loading {info.annotator.full_name}")
            engine.everywhere(load_annotators, recorded_annotators(info, resources.compiled), resources.device)()
        job = _job(info, store, resources)
        return _run(engine, job, info, pending, listing, resources, observer)


def _create(
    engine: Engine,
    store: str,
    settings: Settings,
    listing: Listing,
    resources: Resources,
    observer: Observer,
    annotators: EnsembleSpec,
    exif: str,
) -> tuple[StoreInfo, list[int]]:
    """Look at the annotators, and create the store."""
    observer.phase(f"loading {' + '.join(settings.models)}")
    sample = tuple(listing.places[row] for row in spread(len(listing.ids), SAMPLE_IMAGES))
    probe = engine.call(probe_annotator, ProbeSpec(annotators, resources.device, settings.top_k, exif, sample))
    _warn_if_flat(probe, observer)
    ids = pack_ids(listing.ids)
    info = new_store_info(settings, listing, probe.annotators, ids.shape[1], exif)
    observer.phase("measuring the labels' distance to the annotator's")
    recorded = recorded_annotators(info, resources.compiled)
    loaded = engine.everywhere(load_annotators, recorded, resources.device)
    measured = DistanceSpec(recorded, resources.device, info, sample, resources.threads)
    info = replace(info, distance=engine.call(measure_distance, measured))
    create_store(store, info, ids, listing.targets)
    loaded()
    return info, pending_shards(info.num_shards, ())


def _run(
    engine: Engine,
    job: JobSpec,
    info: StoreInfo,
    pending: list[int],
    listing: Listing,
    resources: Resources,
    observer: Observer,
) -> Summary:
    rows = sum(len(info.shard_rows(shard)) for shard in pending)
    observer.plan(info.num_rows, info.num_rows - rows)
    tally = _Tally(observer)
    start = time.perf_counter()
    specs = tasks(job, pending, info.shard_size, resources.workers, lambda shard: listing.part(info.shard_rows(shard)))
    for report in engine.run(specs, tally.progress):
        tally.finish(report)
    seconds = time.perf_counter() - start
    made = np.concatenate([np.array(info.shard_rows(shard)) for shard in pending])
    return summarise(job.store, info, rows, seconds, made)


@contextmanager
def _engine(resources: Resources, observer: Observer) -> Iterator[Engine]:
    if resources.workers == 0:
        keep_the_heap()
        yield SerialEngine()
        return
    observer.phase(f"starting {resources.workers} worker{'s' if resources.workers > 1 else ''}")
    with local_cluster(resources) as client:
        observer.dashboard(client.dashboard_link)
        yield DaskEngine(client)


def summarise(location: str, info: StoreInfo, new_rows: int, seconds: float, made: NDArray[np.int64] | None = None) -> Summary:
    """Look at the store after a run; ``made`` are its rows."""
    reader = LabelMapReader(location, compiled=False)
    done = reader.status() == Status.DONE
    example = reader.ids[int(done.argmax())] if done.any() else None
    counts = count_rows(reader, location)
    agreement = label_agreement(reader, made) if made is not None else None
    return Summary(location, info, counts, new_rows, seconds, failures_of(reader, LISTED_FAILURES), example, agreement)


def _warn_if_flat(probe: Probe, observer: Observer) -> None:
    flatness, info = probe.flatness, probe.annotators.combined
    if flatness is not None and flatness.much:
        observer.warning(
            f"{info.name} is much less sure at {info.preprocessing.input_size} px than at its own {info.own_input_size} px: "
            f"the best class of a whole image has a median probability of {flatness.chosen:.2f} instead of "
            f"{flatness.own:.2f}, so soft labels will be flat. Leave out --image-size, or choose an annotator made for "
            "that size"
        )


def _job(info: StoreInfo, store: str, resources: Resources) -> JobSpec:
    return JobSpec(
        run=uuid.uuid4().hex,
        store=store,
        annotators=recorded_annotators(info, resources.compiled),
        batch_size=resources.batch_size,
        device=resources.device,
        threads=resources.threads,
        decode_threads=resources.decode_threads,
        decode_ahead=_BATCHES_AHEAD * resources.batch_size if resources.device == "cuda" else 0,
    )
