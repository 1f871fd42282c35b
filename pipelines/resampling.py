"""`verify --sample`: a few rows annotated again, and held against what the store says of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import find_encoding
from labelstore.errors import ImagesError, StoreMismatchError
from labelstore.pipelines.loading import LoadSpec, load_batches
from labelstore.pipelines.maps import MapBatch, Mapper, Stopwatch
from labelstore.pipelines.matching import match_images
from labelstore.pipelines.recorded_roots import recorded_listing
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.resources import Resources
from labelstore.pipelines.settings import require_decoder
from labelstore.pipelines.shard import cached_ensemble, require_same_annotator, torch_threads
from labelstore.pipelines.sources import ImagesSpec, Listing, list_images
from labelstore.pipelines.sources.places import Place
from labelstore.pixels import ReadRules
from labelstore.pooling import pool_maps
from labelstore.reader import LabelMapReader
from labelstore.schema import Status, StoreInfo

SAME = 0.05
"""L1 distance up to which a label counts as the same: another device or number of threads moves it far less."""
_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Sample:
    """What annotating rows again has shown: how many ``rows`` were compared, the mean and largest L1 distance of their images'
    soft labels, 0 to 2, and (id, what is wrong) of those that are not the same."""

    rows: int
    mean_l1: float
    largest_l1: float
    problems: tuple[tuple[str, str], ...]


def sample_again(
    location: str, images: ImagesSpec | None, count: int, resources: Resources, models: Sequence[str] = ()
) -> Sample:
    """Annotate some rows again that are done, chosen at random, in this process.

    Parameters
    ----------
    images
        Where the images are; None: where they were when the store was made, if that is on this machine.
    models
        The annotators that the user names: those that run code when they are loaded must be among them.

    Raises
    ------
    ImagesError, StoreMismatchError, AnnotatorError
        The images, or the annotator, are not there or are others.
    """
    reader = LabelMapReader(location, compiled=False)
    info = reader.info
    if info.imported is not None:
        raise StoreMismatchError(
            f"{location}: its maps were not annotated but imported ({info.imported.kind}): nothing to compare"
        )
    annotating = recorded_annotators(location, info, models, resources.compiled)
    require_decoder(info.decoder, resources.device)
    rows, places = _choose(reader, images, count, np.random.default_rng())
    annotators = cached_ensemble(annotating, resources.device)
    require_same_annotator(annotators, info, location)
    mapper = Mapper(annotators, info, Stopwatch())
    sizes = [min(resources.batch_size, len(rows) - start) for start in range(0, len(rows), resources.batch_size)]
    how = LoadSpec(annotators.inputs, ReadRules.of(info), resources.decode_threads, 0, info.decoder == "nvjpeg")
    with torch_threads(resources.threads):
        batches = zip(itertools.accumulate([0, *sizes]), mapper.map(load_batches(places, sizes, how)), strict=False)
        found = [pair for start, batch in batches for pair in _compared(batch, reader, rows[start : start + len(batch.errors)])]
    problems = tuple((reader.ids[row], error) for row, (error, _) in zip(rows.tolist(), found, strict=True) if error)
    distances = [distance for _, distance in found if distance is not None]
    return Sample(len(rows), float(np.mean(distances or [0])), max(distances, default=0.0), problems)


def _choose(
    reader: LabelMapReader, images: ImagesSpec | None, count: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], list[Place]]:
    """Return rows that are done and whose images are there, and where these are."""
    listings = [list_images(images)] if images is not None else _recorded(reader.info)
    done = reader.status() == Status.DONE
    found: dict[int, Place] = {}
    for listing in listings:
        matched = match_images(reader.ids, reader.info, listing).images
        able = np.flatnonzero(done & (matched >= 0))
        chosen = random.choice(able, min(count, len(able)), replace=False) if len(able) else able
        found.update({int(row): listing.places[int(matched[row])] for row in chosen})
    if not found:
        raise StoreMismatchError(f"no row that is done has its image below {', '.join(listing.root for listing in listings)}")
    rows = np.sort(random.choice(np.array(list(found)), min(count, len(found)), replace=False))
    return rows, [found[row] for row in rows.tolist()]


def _recorded(info: StoreInfo) -> list[Listing]:
    roots = dict.fromkeys(extent.images_root for extent in info.all_extents if extent.images_root)
    if not roots:
        raise ImagesError("the store does not say where its images are; name them with --images")
    return [recorded_listing(root) for root in roots]


def _compared(batch: MapBatch, reader: LabelMapReader, rows: NDArray[np.int64]) -> Iterator[tuple[str, float | None]]:
    """Yield what is wrong with each row, and its distance if there is one."""
    boxes = np.tile(_WHOLE, (len(rows), 1))
    again = pool_maps(find_encoding(reader.info.encoding, ""), batch.arrays, boxes, reader.info, np.float32(1), None)
    distances = np.abs(again - reader.pool(rows, boxes)).sum(axis=1)
    for row, error, crc32, distance in zip(rows.tolist(), batch.errors, batch.crc32, distances.tolist(), strict=True):
        if error or crc32 != reader.image_crc32(row):
            yield error or "the image is not the one that the map was made from", None
        else:
            yield f"its soft label is {distance:.3f} from the one of today (L1)" if distance > SAME else "", distance
