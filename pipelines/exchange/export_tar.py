"""`export webdataset`: a store's maps in tar files, a sample an image, to be read in step with the images'."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.pipelines.exchange.exporting import ChosenMaps, Exported, export_folder, require_distinct
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.sources.tar_labels import sample_key
from labelstore.schema import ATTRIBUTE


def export_tar(store: str, dest: str, maps_a_tar: int, selection: Selection, observer: Observer) -> Exported:
    """Write ``maps-000000.tar`` and so on, and ``labelstore.json``, what the store says of its maps.

    A sample's key is that of the image: its id up to the first dot of the file's name, as WebDataset has it. It holds
    ``classes.npy`` uint16 and ``scores.npy`` float32 ``[K, H, W]`` and ``json`` (``id``, ``target``, ``image_crc32``).

    Raises
    ------
    ImagesError
        Images that would have the same key.
    LabelStoreError
        As `ChosenMaps` and `export_folder`.
    """
    maps = ChosenMaps(store, selection, observer)
    require_distinct(maps.ids(), sample_key, "WebDataset's key of an image ends at the first dot of its file's name")
    with export_folder(dest, maps, "webdataset", maps_a_tar=maps_a_tar) as root:
        (root / f"{ATTRIBUTE}.json").write_text(json.dumps(maps.info().to_attributes(), indent=2))
        size = sum(_write_tars(root, maps, maps_a_tar))
    return Exported(dest, len(maps.rows), maps.left_out, size)


def _write_tars(root: Path, maps: ChosenMaps, maps_a_tar: int) -> Iterator[int]:
    """Write the files; yield their sizes."""
    samples = _samples(maps)
    for number in range(-(-len(maps.rows) // maps_a_tar)):
        path = root / f"maps-{number:06}.tar"
        with tarfile.open(path, "w") as archive:
            for key, members in itertools.islice(samples, maps_a_tar):
                for ending, data in members.items():
                    entry = tarfile.TarInfo(f"{key}.{ending}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        yield path.stat().st_size


def _samples(maps: ChosenMaps) -> Iterator[tuple[str, dict[str, bytes]]]:
    targets = maps.reader.targets
    for part in maps.parts():
        crc32 = maps.reader.image_crc32s(part.rows)
        for at, (row, image_id) in enumerate(zip(part.rows.tolist(), part.ids, strict=True)):
            said = {"id": image_id, "target": int(targets[row]), "image_crc32": int(crc32[at])}
            yield (
                sample_key(image_id),
                {
                    "classes.npy": _npy(part.maps.classes[at]),
                    "scores.npy": _npy(part.maps.scores[at]),
                    "json": json.dumps(said).encode(),
                },
            )


def _npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()
