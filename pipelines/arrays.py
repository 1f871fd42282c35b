"""A store's arrays as Zarr knows them: created empty, and their metadata."""

from __future__ import annotations

import json
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype

from labelstore.pipelines.files import ZSTD_LEVEL
from labelstore.schema import ArraySpec
from labelstore.storage.metadata import codec_names

_CODECS = {"zstd": ZstdCodec(level=ZSTD_LEVEL, checksum=True), "crc32c": Crc32cCodec()}


def create_array(group: zarr.Group, spec: ArraySpec, rows: int, chunk_rows: int) -> None:
    """Create an array of a store, without any rows written."""
    inner = 1 if spec.by_row else chunk_rows
    group.create_array(
        spec.name,
        shape=(rows, *spec.row_shape),
        chunks=(inner, *spec.row_shape),
        shards=(chunk_rows, *spec.row_shape) if spec.by_row else None,
        dtype=spec.dtype,
        fill_value=spec.fill,
        compressors=[_CODECS[name] for name in codec_names(spec) if name != "bytes"],
        dimension_names=spec.dims,
        chunk_key_encoding={"name": "default", "separator": "."},
    )


def array_json(group: zarr.Group, name: str) -> dict[str, Any]:
    """Return what an array's ``zarr.json`` holds."""
    files = group[name].metadata.to_buffer_dict(default_buffer_prototype())
    found: dict[str, Any] = json.loads(files["zarr.json"].to_bytes())
    return found
