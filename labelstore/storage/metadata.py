"""A Zarr v3 array's ``zarr.json``, held against what the format asks for. Pure: no files are touched here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelstore.encodings import committed_arrays
from labelstore.errors import DamagedError, FormatError
from labelstore.schema import COMMIT_FIELDS, ArraySpec, StoreInfo
from labelstore.storage.seals import array_seal


@dataclass(frozen=True)
class ArrayMeta:
    """What the fast path needs to know of an array.

    ``direct`` says that the bytes are laid out as this project writes them, so that they can be read without Zarr.
    """

    separator: str
    direct: bool

    def file_name(self, spec: ArraySpec, shard: int) -> str:
        """The shard's file below the array's folder, as this store names it."""
        return spec.file_name(shard).replace(".", self.separator)


def commits_spec(info: StoreInfo) -> ArraySpec:
    """Return the spec of ``commits``: one row a *shard*, each its own chunk."""
    rows = len(committed_arrays(info)) + (info.store_id is not None)
    shape, dims = (rows, len(COMMIT_FIELDS)), ("shard", "file", "commit_field")
    return ArraySpec("commits", "uint64", shape, 0, committed=False, compressed=False, dims=dims)


def check_array(meta: object, spec: ArraySpec, rows: int, chunk_rows: int, where: str, seal: int | None = None) -> ArrayMeta:
    """Check shape, dtype and chunks, and everything else by its checksum where there is one.

    Raises
    ------
    FormatError
        With the array, what was expected and what was found.
    DamagedError
        The metadata is not what the store's checksum is of.
    """
    if not isinstance(meta, Mapping) or meta.get("zarr_format") != 3 or meta.get("node_type") != "array":
        raise FormatError(f"{where}/{spec.name}: expected the metadata of a Zarr v3 array, found {str(meta)[:80]}")
    grid = _configuration(meta.get("chunk_grid")).get("chunk_shape")
    shape = meta.get("shape")
    if isinstance(shape, list) and shape and isinstance(shape[0], int) and shape[0] > rows:
        # An extension that was cut off, or is under way: its rows do not count yet.
        meta = {**meta, "shape": [rows, *shape[1:]]}
    expected = {
        "shape": [rows, *spec.row_shape],
        "data_type": spec.dtype,
        "chunk shape": [chunk_rows, *spec.row_shape],
        "fill_value": spec.fill,
    }
    found = {key: meta.get(key) for key in ("shape", "data_type", "fill_value")} | {"chunk shape": grid}
    for key, value in expected.items():
        if found[key] != value:
            raise FormatError(f"{where}/{spec.name}: {key}: expected {value}, found {str(found[key])[:80]}")
    if seal is not None and array_seal(meta) != seal:
        sums = f"expected checksum {str(seal)[:20]}, found {array_seal(meta)}"
        raise DamagedError(f"{where}/{spec.name}/zarr.json: not what was written: {sums}; `labelstore repair` makes it anew")
    separator = _separator(meta.get("chunk_key_encoding"))
    direct = separator is not None and _known_codecs(meta.get("codecs"), spec) and not meta.get("storage_transformers")
    return ArrayMeta(separator or ".", direct)


def array_grid(spec: ArraySpec, info: StoreInfo) -> tuple[int, int]:
    """Return ``(rows, rows a chunk)`` of one of the store's arrays."""
    return (info.num_shards, 1) if spec.name == "commits" else (info.num_rows, info.shard_size)


def _known_codecs(codecs: object, spec: ArraySpec) -> bool:
    if not spec.by_row:
        return _are_codecs(codecs, spec, codec_names(spec))
    if not isinstance(codecs, list) or _names(codecs) != ["sharding_indexed"]:
        return False
    inner = _configuration(codecs[0])
    return (
        inner.get("chunk_shape") == [1, *spec.row_shape]
        and inner.get("index_location", "end") == "end"
        and _names(inner.get("index_codecs")) == ["bytes", "crc32c"]
        and _configuration(inner["index_codecs"][0]).get("endian") == "little"
        and _are_codecs(inner.get("codecs"), spec, codec_names(spec))
    )


def codec_names(spec: ArraySpec) -> list[str]:
    """Return the codecs that chunks of an array go through. zstd frames carry their own checksum, of what is in them; what no
    commit seals has one of its bytes as well."""
    if not spec.compressed:
        return ["bytes", "crc32c"]
    return ["bytes", "zstd"] if spec.committed else ["bytes", "zstd", "crc32c"]


def _are_codecs(codecs: object, spec: ArraySpec, names: list[str]) -> bool:
    if not isinstance(codecs, list) or _names(codecs) != names:
        return False
    little = spec.numpy_dtype.itemsize == 1 or _configuration(codecs[0]).get("endian") == "little"
    return little and ("zstd" not in names or _configuration(codecs[1]).get("checksum") is True)


def _names(codecs: object) -> list[object]:
    if not isinstance(codecs, list):
        return []
    return [codec.get("name") if isinstance(codec, Mapping) else None for codec in codecs]


def _configuration(value: object) -> Mapping[str, Any]:
    inner = value.get("configuration") if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _separator(encoding: object) -> str | None:
    if not isinstance(encoding, Mapping) or encoding.get("name") != "default":
        return None
    separator = _configuration(encoding).get("separator", "/")
    return separator if separator in ("/", ".") else None
