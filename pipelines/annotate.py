"""`annotate`: a folder of images to a store of label maps, from the first look to the summary."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from labelstore.class_map import ClassMap, as_class_map
from labelstore.ids import pack_ids
from labelstore.own_labels import own_labels
from labelstore.pipelines.annotators.spec import EnsembleSpec
from labelstore.pipelines.distance import DistanceSpec, measure_distance
from labelstore.pipelines.engine import Engine, Work
from labelstore.pipelines.finishing import finish_shards
from labelstore.pipelines.free_place import require_free
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.lock import try_store_lock
from labelstore.pipelines.marks import require_writable
from labelstore.pipelines.matching import ExistingStore, new_store, shard_spec
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import JobSpec, ShardReport, TaskSpec, tasks
from labelstore.pipelines.preparing import Intent, find_store
from labelstore.pipelines.probe import SAMPLE_IMAGES, Probe, ProbeSpec, probe_annotator, spread
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.setting_aside import Alone, Suspects
from labelstore.pipelines.settings import Settings, new_store_info, require_decoder
from labelstore.pipelines.shard import annotate_shards, load_annotators
from labelstore.pipelines.sources import ImagesSpec, Listing, Place, list_images
from labelstore.pipelines.store import create_store
from labelstore.pipelines.summary import Summary, summarise
from labelstore.pipelines.versions import shared_versions
from labelstore.pipelines.which_engine import Needs, open_engine
from labelstore.pixels import ReadRules
from labelstore.schema import StoreInfo

_BATCHES_AHEAD = 3


def _prepare(job: JobSpec) -> None:
    load_annotators(job.annotators, job.device)


def _rescue(alone: Alone, observer: Observer) -> Callable[[TaskSpec], Iterator[ShardReport]]:
    return Suspects(alone, observer).finish


ANNOTATING = Work("annotating", _prepare, annotate_shards, _rescue)


def annotate(
    images: ImagesSpec | Path | str,
    store: str,
    settings: Settings,
    resources: Resources,
    observer: Observer,
    *,
    extend: bool = False,
    retry_failed: bool = False,
    class_map: ClassMap | None = None,
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
    extend
        Add images that the store has no rows for.
    retry_failed
        Make the shards with failed rows once more.
    class_map
        Which classes of the annotator the images' own labels are, for the agreement in the summary: see `own_labels`.

    Raises
    ------
    LabelStoreError
        Anything that stops the run. Committed shards are kept: the same call later makes what is missing.
    """
    start = time.perf_counter()
    source = images if isinstance(images, ImagesSpec) else ImagesSpec((str(images),))
    settings.encoding_choice()  # refused before anything is begun
    class_map = as_class_map(class_map)
    spec, rules = settings.ensemble_spec(resources.compiled), settings.chosen_rules(source.exif)
    observer.phase("looking for images")
    listing = list_images(source)
    for note in listing.notes:
        observer.note(note)
    with try_store_lock(store) as unwritable:
        found = find_store(store, settings, listing, Intent(extend, retry_failed, unwritable is None), observer)
        if found is not None:
            own_labels(found.info, class_map)  # a map that does not fit is refused before the work
        if unwritable is not None and (extend or retry_failed):
            raise unwritable
        if found is not None and not found.pending:
            observer.plan(found.info.num_images, found.info.num_images)
            return summarise(store, found.info, 0, time.perf_counter() - start)
        if unwritable is not None:
            raise unwritable
        wanted = spec if found is None else recorded_annotators(store, found.info, settings.models, resources.compiled)
        decoder = settings.chosen_decoder() if found is None else found.info.decoder
        require_decoder(decoder, resources.device)
        if found is None:
            require_free(store)
        require_writable(store)  # told now, and not when annotators are loaded
        sample = tuple(listing.places[row] for row in spread(len(listing.ids), SAMPLE_IMAGES))
        with open_engine(resources, Needs(wanted, store, sample), observer) as (engine, resources):
            require_decoder(decoder, resources.device)
            if found is None:
                found = _create(engine, store, settings, listing, resources, observer, spec, rules, sample, class_map)
            else:
                observer.phase(f"loading {found.info.annotator.full_name}")
                engine.everywhere(load_annotators, wanted, resources.device)()
            job = _job(
                found.info, recorded_annotators(store, found.info, settings.models, resources.compiled), store, resources
            )
            summary = _run(engine, job, found, listing, resources, observer, class_map)
        remove_left_overs(store)  # of workers that died
        return summary


def _create(
    engine: Engine,
    store: str,
    settings: Settings,
    listing: Listing,
    resources: Resources,
    observer: Observer,
    annotators: EnsembleSpec,
    rules: ReadRules,
    sample: tuple[Place, ...],
    class_map: ClassMap | None,
) -> ExistingStore:
    """Look at the annotators, and create the store."""
    observer.phase(f"loading {' + '.join(settings.models)}")
    probe = engine.call(probe_annotator, ProbeSpec(annotators, resources.device, settings.top_k, rules, sample))
    for member in probe.annotators.members:
        for note in member.notes:
            observer.note(note)
    for warning in probe.warnings:
        observer.warning(warning)
    _warn_if_flat(probe, observer)
    ids = pack_ids(listing.ids)
    info = new_store_info(settings, listing, probe.annotators, ids.shape[1], rules)
    own_labels(info, class_map)
    observer.phase("measuring the labels' distance to the annotator's")
    recorded = recorded_annotators(store, info, settings.models, resources.compiled)
    loaded = engine.everywhere(load_annotators, recorded, resources.device)
    measured = DistanceSpec(recorded, resources.device, info, sample, resources.threads)
    info = replace(info, distance=engine.call(measure_distance, measured))
    info = create_store(store, info, ids, listing.targets)
    loaded()
    return new_store(info)


def _run(
    engine: Engine,
    job: JobSpec,
    found: ExistingStore,
    listing: Listing,
    resources: Resources,
    observer: Observer,
    class_map: ClassMap | None,
) -> Summary:
    part = functools.partial(shard_spec, found, listing)
    specs = tasks(job, found.pending, found.info.shard_size, resources.workers, part)
    pending = found.pending
    return finish_shards(engine, ANNOTATING, specs, job.store, found.info, pending, observer, found.left, class_map)


def _warn_if_flat(probe: Probe, observer: Observer) -> None:
    flatness, info = probe.flatness, probe.annotators.combined
    if flatness is not None and flatness.much:
        observer.warning(
            f"{info.name} is much less sure at {info.preprocessing.input_size} px than at its own {info.own_input_size} px: "
            f"the best class of a whole image has a median probability of {flatness.chosen:.2f} instead of "
            f"{flatness.own:.2f}, so soft labels will be flat. Leave out --image-size, or choose an annotator made for "
            "that size"
        )


def _job(info: StoreInfo, annotators: EnsembleSpec, store: str, resources: Resources) -> JobSpec:
    return JobSpec(
        run=uuid.uuid4().hex,
        store=store,
        annotators=annotators,
        batch_size=resources.batch_size,
        device=resources.device,
        threads=resources.threads,
        decode_threads=resources.decode_threads,
        decode_ahead=_BATCHES_AHEAD * resources.batch_size if resources.device == "cuda" else 0,
        versions=tuple(shared_versions().items()),
        identity=info.identity,
    )
