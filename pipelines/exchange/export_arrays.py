"""`export arrays`: a store's maps as plain arrays, ``.npz`` or a Zarr group, with all that `import arrays` needs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from labelstore.errors import OptionError
from labelstore.pipelines.exchange.exporting import ChosenMaps, Exported, export_folder
from labelstore.pipelines.exchange.selection import Selection
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.store import writing
from labelstore.schema import ATTRIBUTE
from labelstore.summary import folder_bytes

_CHUNK_ROWS = 256
Arrays = dict[str, NDArray[Any]]


def export_arrays(store: str, dest: str, selection: Selection, observer: Observer) -> Exported:
    """Write ``classes`` uint16 and ``scores`` float32 ``[N, K, H, W]``, ``ids`` (texts, in ``.zarr`` bytes uint8 ``[N, L]``),
    ``targets`` int32 and ``image_crc32`` uint32 ``[N]``; and what the store says of its maps, under ``labelstore``.

    Raises
    ------
    OptionError
        ``dest`` ends in neither ``.npz`` nor ``.zarr``, or is there already.
    LabelStoreError
        As `ChosenMaps`.
    """
    if not dest.endswith((".npz", ".zarr")):
        raise OptionError(f"{dest}: expected a name that ends in .npz or .zarr")
    maps = ChosenMaps(store, selection, observer)
    if dest.endswith(".npz") and Path(dest).exists():
        raise OptionError(f"{dest}: expected nothing, found something; choose another place, or remove what is there")
    if dest.endswith(".npz"):
        with writing(dest):
            size = _write_npz(maps, Path(dest))
    else:
        with export_folder(dest, maps, "arrays") as folder:
            size = _write_zarr(maps, folder)
    return Exported(dest, len(maps.rows), maps.left_out, size)


def _write_npz(maps: ChosenMaps, dest: Path) -> int:
    """Write the archive member by member, each map's rows twice: an archive has one member open at a time."""
    info = maps.info()
    shape = (len(maps.rows), info.top_k, *info.map_size)
    partial = dest.with_name(dest.name + ".partial")
    with zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
        for name, values in _columns(maps).items():
            _write_member(archive, name, values.shape, values.dtype, iter([values]))
        _write_member(archive, "classes", shape, np.dtype("<u2"), (part.maps.classes for part in maps.parts()))
        _write_member(archive, "scores", shape, np.dtype("<f4"), (part.maps.scores for part in maps.parts()))
        said = np.array(json.dumps(info.to_attributes()))
        _write_member(archive, ATTRIBUTE, said.shape, said.dtype, iter([said]))
    partial.replace(dest)
    return dest.stat().st_size


def _write_member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterator[NDArray[Any]]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(member, header)
        for part in parts:
            member.write(np.ascontiguousarray(part, dtype).tobytes())


def _write_zarr(maps: ChosenMaps, dest: Path) -> int:
    info = maps.info()
    group = zarr.open_group(str(dest), mode="a", attributes={ATTRIBUTE: info.to_attributes()})
    for name, values in _columns(maps).items():
        if name == "ids":
            values = values.view(np.uint8).reshape(len(values), -1)
        group.create_array(name, data=values, overwrite=True)
    shape, chunks = (len(maps.rows), info.top_k, *info.map_size), (_CHUNK_ROWS, info.top_k, *info.map_size)
    classes = group.create_array("classes", shape=shape, chunks=chunks, dtype="uint16", overwrite=True)
    scores = group.create_array("scores", shape=shape, chunks=chunks, dtype="float32", overwrite=True)
    for part in maps.parts():
        classes[part.place], scores[part.place] = part.maps.classes, part.maps.scores
    return folder_bytes(dest)


def _columns(maps: ChosenMaps) -> Arrays:
    """Return the small arrays."""
    reader, rows = maps.reader, maps.rows
    ids = np.array([image_id.encode() for image_id in maps.ids()])
    return {"ids": ids, "targets": reader.targets[rows], "image_crc32": reader.image_crc32s(rows)}
