"""What arrays of a Zarr group that others have made may consist of, told by their metadata before anything is decoded.

A codec is a program that metadata choose, and some of them (pickle) run what the data say. So this is an allow-list: of plain
numbers and texts of one length, and of codecs that only compress, sum or reorder bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS = re.compile(r"(u?int(8|16|32|64)|float(16|32|64)|bool)")
_TEXTS_V3 = ("fixed_length_utf32", "null_terminated_bytes")
_TYPES_V2 = re.compile(r"([|<>]b1|[|<>][iu][1248]|[<>]f[248]|[|<>][SU]\d{1,6})")
CODECS_V3 = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd")
COMPRESSORS_V2 = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")
FILTERS_V2 = ("adler32", "crc32", "crc32c", "fletcher32", "shuffle")
_DEEPEST = 2
"""Shards within shards are nobody's."""


def require_plain(meta: Any, where: str) -> Mapping[str, Any]:
    """Return an array's metadata, of Zarr 2 or 3.

    Raises
    ------
    ValueError, TypeError
        They name a type or codec that is not on the list, or are none; says which, and where.
    """
    if not isinstance(meta, Mapping):
        raise TypeError(f"{where}: expected an object, got {type(meta).__name__}")
    if meta.get("zarr_format") == 2:
        _require_v2(meta, where)
    elif meta.get("zarr_format") == 3 and meta.get("node_type") == "array":
        _require_v3(meta, where)
    else:
        raise ValueError(f"{where}: expected the metadata of an array, of Zarr format 2 or 3")
    return meta


def _require_v2(meta: Mapping[str, Any], where: str) -> None:
    kind = meta.get("dtype")
    if not isinstance(kind, str) or _TYPES_V2.fullmatch(kind) is None:
        raise _refused(where, "dtype", kind, "numbers, or texts of one length")
    compressor = meta.get("compressor")
    if compressor is not None:
        _require_known(where, "compressor", compressor, "id", COMPRESSORS_V2)
    for found in _listed(where, "filters", meta.get("filters") or ()):
        _require_known(where, "filter", found, "id", FILTERS_V2)


def _require_v3(meta: Mapping[str, Any], where: str) -> None:
    kind = meta.get("data_type")
    plain = isinstance(kind, str) and _NUMBERS.fullmatch(kind) is not None
    if not plain and not (isinstance(kind, Mapping) and kind.get("name") in _TEXTS_V3):
        raise _refused(where, "data_type", kind, "numbers, or texts of one length")
    if meta.get("storage_transformers"):
        raise _refused(where, "storage_transformers", meta["storage_transformers"], "none")
    _require_codecs(where, meta.get("codecs"), 0)


def _require_codecs(where: str, codecs: Any, depth: int) -> None:
    for found in _listed(where, "codecs", codecs):
        _require_known(where, "codec", found, "name", CODECS_V3)
        if (found.get("name") if isinstance(found, Mapping) else found) == "sharding_indexed":
            if depth == _DEEPEST:
                raise ValueError(f"{where}: expected shards of chunks, found shards within shards within shards")
            inner = found.get("configuration") if isinstance(found, Mapping) else None
            for key in ("codecs", "index_codecs"):
                _require_codecs(where, inner.get(key) if isinstance(inner, Mapping) else None, depth + 1)


def _listed(where: str, key: str, found: Any) -> Sequence[Any]:
    if not isinstance(found, list | tuple):
        raise TypeError(f"{where}: {key}: expected a list, got {type(found).__name__}")
    return found


def _require_known(where: str, what: str, found: Any, key: str, known: Sequence[str]) -> None:
    name = found.get(key) if isinstance(found, Mapping) else found  # Zarr 3 allows a bare name
    if name not in known:
        raise _refused(where, what, name, f"one of {', '.join(known)}")


def _refused(where: str, what: str, found: Any, expected: str) -> ValueError:
    return ValueError(
        f"{where}: {what}: expected {expected}, found {str(found)[:60]!r}, which is not decoded: it may run code. Write the "
        "arrays anew without it, or as .npz"
    )
