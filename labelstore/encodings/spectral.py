"""Our encoding: M classes an image, their maps mixed of a few smooth patterns that all of them share.

What pooling reads of a map are averages over boxes, which are smooth; and the maps of an image's classes resemble each other.
So a row keeps R *patterns*, each a sum of the map's lowest cosines, and of each class its mean logit and how much it has of
each pattern. With ``phi(u, y) = cos(pi * u * (y + 1/2) / H)`` down the map and likewise ``phi(v, x)`` across it, the logit of
the m-th class at (y, x) is::

    mean[m] + sum over r of weight[m, r] * sum over u, v of pattern[r, u, v] * phi(u, y) * phi(v, x)

and that of a class that is not named is the same everywhere: one of four, and two bits a class say which. RoIAlign is linear
and separable: pooling puts ``sum over y of wy[y] * phi(u, y)`` in the place of ``phi(u, y)``, and never makes the map.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.boxes import box_weights
from labelstore.encodings.base import Arrays, SoftLabels
from labelstore.errors import FormatError
from labelstore.labelmap import LabelMap
from labelstore.records import SpectralShape
from labelstore.schema import NO_CLASS, ArraySpec, StoreInfo

ARRAY = "spectra"
FIELDS = ("scales", "rest", "classes", "means", "weights", "patterns", "tail")
LEVELS = 255
LARGEST_WEIGHT = 127
ONE = 127
"""The whole number that stands for a coefficient of 1 in a pattern."""
_ALIGNMENT = 4
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Spectral:
    """``spectra``, a record a row; see docs/format.md."""

    name = "spectral"
    recipe = (
        "spectra[n]: a record, little-endian: float32 (max, mean_step, weight_step); float32 rest [2**tail_bits, or none]; "
        "uint16 classes [M], 65535 = none; uint8 means [M]; int8 weights [P,R]; int8 patterns [R,kh,kw]; uint8 tail "
        "[ceil(C*tail_bits/8)]; zeros up to a multiple of 4 bytes. Logit of classes[m] at "
        "(y,x) = max - mean_step * means[m] + sum_r weight_step * weights[m,r] * sum_uv patterns[r,u,v] / 127 * "
        "cos(pi*u*(y+.5)/H) * cos(pi*v*(x+.5)/W); the sum over r for m < P alone. A class c that is not named "
        "has logit rest[tail[c*tail_bits//8] >> c*tail_bits%8 & 2**tail_bits-1], or 0 without tail_bits. "
        "Only rows with status 1 hold a map, and only while commits[n // shard_size] is not all zero."
    )

    def arrays(self, info: StoreInfo) -> tuple[ArraySpec, ...]:
        """Return ``spectra``."""
        size = record_of(info).itemsize
        return (ArraySpec(ARRAY, "uint8", (size,), 0, by_row=True, compressed=False, dims=("row", "record_byte")),)

    def check(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Find classes out of range or named twice, and numbers that are not finite."""
        fields = split(arrays[ARRAY].reshape(-1, arrays[ARRAY].shape[-1]), info)
        classes, scales = fields["classes"], fields["scales"]
        ordered = np.sort(classes, axis=1)
        if ordered.size and int(ordered[:, -1].max()) >= info.num_classes:
            outside = (classes >= info.num_classes) & (classes != NO_CLASS)
            if outside.any():
                return _first(outside), f"classes: expected 0..{info.num_classes - 1}, found {classes[outside].max()}"
        twice = ordered[:, 1:] == ordered[:, :-1]
        if twice.any():
            twice &= ordered[:, 1:] != NO_CLASS
            if twice.any():
                return _first(twice), f"classes: expected each at most once, found {ordered[:, 1:][twice][0]} twice"
        largest = np.abs(scales) @ _reach(shape_of(info))  # NaN and infinity leave float32 too
        if not ((largest <= _FLOAT32_MAX).all() and scales[:, 1:].min(initial=0) >= 0):
            row = int(np.argmin((largest <= _FLOAT32_MAX) & (scales[:, 1:] >= 0).all(axis=1)))
            found = scales[row].tolist()
            return row, f"scales: expected (max, mean step >= 0, weight step >= 0), logits finite in float32, found {found}"
        if not np.isfinite(fields["rest"]).all():
            return _first(~np.isfinite(fields["rest"])), "rest: expected finite logits, found others"
        return None

    def check_closely(self, arrays: Arrays, info: StoreInfo) -> tuple[int, str] | None:
        """Find records that do not end in zeros."""
        records = arrays[ARRAY].reshape(-1, arrays[ARRAY].shape[-1])
        filled = records.view(record_of(info))[:, 0]["padding"] != 0
        return (_first(filled), "expected zeros behind the record's fields, found others") if filled.any() else None

    def unpack(self, arrays: Arrays, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Return the records' fields, each an array of its own."""
        return {name: part.copy() for name, part in split(arrays[ARRAY], info).items()}

    def one_class(self, chosen: int, logit: float, info: StoreInfo) -> dict[str, NDArray[Any]]:
        """Name the class, and no other."""
        record = np.zeros((), record_of(info))
        record["scales"][0] = logit
        record["classes"] = NO_CLASS
        record["classes"][0] = chosen
        return {name: np.array(record[name]) for name in FIELDS}

    def decode(self, arrays: Arrays, info: StoreInfo) -> LabelMap:
        """Rebuild the map, and of every location the K best classes."""
        records = arrays[ARRAY]
        classes, logits = rebuild(records.reshape(-1, records.shape[-1]), info)
        found, scores = _best(classes, logits, info.top_k)
        return LabelMap(found, scores) if records.ndim == 2 else LabelMap(found[0], scores[0])

    def pool(self, arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo) -> NDArray[np.float32]:
        """Pool the patterns, mix them, and put the classes in their places, among what is not named."""
        shape = shape_of(info)
        fields = split(arrays[ARRAY], info)
        (height, width), (wy, wx) = info.map_size, box_weights(boxes, info.map_size)
        down, across = wy @ cosines(height, shape.frequencies[0]), wx @ cosines(width, shape.frequencies[1])
        pooled = np.einsum("bruv,bu,bv->br", fields["patterns"], down, across) / ONE
        values = mean_logits(fields)
        values[:, : shape.shaped] += fields["scales"][:, 2:] * np.einsum("bpr,br->bp", fields["weights"], pooled)
        logits = np.zeros((len(boxes), info.num_classes + 1), np.float32)  # the last collects what names no class
        if shape.tail_bits:
            logits[:, :-1] = rest_logits(fields, info)
        places = np.minimum(fields["classes"], info.num_classes).astype(np.intp)
        np.put_along_axis(logits, places, values.astype(np.float32), axis=1)
        return logits[:, : info.num_classes]

    def compiled(self) -> SoftLabels | None:
        """Return `spectral_compiled`'s."""
        if find_spec("numba") is None:
            return None
        from labelstore.encodings.spectral_compiled import soft_labels  # numba takes a fifth of a second: only where it pools

        def pool(
            arrays: Arrays, boxes: NDArray[np.float64], info: StoreInfo, temperature: float, out: NDArray[np.float32]
        ) -> None:
            shape, (height, width) = shape_of(info), info.map_size
            waves = cosines(height, shape.frequencies[0]), cosines(width, shape.frequencies[1])
            given: list[Any] = [*split(arrays[ARRAY], info).values(), boxes, *waves, float(temperature), out]
            soft_labels(*given)

        return pool


def shape_of(info: StoreInfo) -> SpectralShape:
    """Return what a spectral store says of its records."""
    if info.spectral is None:
        raise FormatError("encoding spectral: expected the attribute 'spectral', found none")
    return info.spectral


@lru_cache
def _reach(shape: SpectralShape) -> NDArray[np.float64]:
    """Return how large a logit can be, in units of a record's scales, float64 ``[3]``."""
    down, across = shape.frequencies
    return np.array([1, LEVELS, 128 * 128 / ONE * max(shape.patterns, 1) * down * across])


def record_of(info: StoreInfo) -> np.dtype[Any]:
    """Return a row's record, as NumPy's structured dtype."""
    return _record(shape_of(info), info.num_classes)


@lru_cache
def _record(shape: SpectralShape, num_classes: int) -> np.dtype[Any]:
    fields: list[Any] = [
        ("scales", "<f4", (3,)),
        ("rest", "<f4", (1 << shape.tail_bits if shape.tail_bits else 0,)),
        ("classes", "<u2", (shape.classes,)),
        ("means", "u1", (shape.classes,)),
        ("weights", "i1", (shape.shaped, shape.patterns)),
        ("patterns", "i1", (shape.patterns, *shape.frequencies)),
        ("tail", "u1", (-(-num_classes * shape.tail_bits // 8),)),
    ]
    padding = -np.dtype(fields).itemsize % _ALIGNMENT
    return np.dtype([*fields, ("padding", "u1", (padding,))])


@lru_cache
def cosines(size: int, count: int) -> NDArray[np.float64]:
    """Return ``phi``, float64 ``[size, count]``: the lowest cosines over an axis of the map."""
    at = (np.arange(size)[:, None] + 0.5) / size
    table = np.cos(np.pi * np.arange(count) * at)
    table.flags.writeable = False
    return table


def split(records: NDArray[np.uint8], info: StoreInfo) -> dict[str, NDArray[Any]]:
    """Return views of the fields of records ``[..., L]``, each ``[..., *field]``, in the order of `FIELDS`."""
    table = records.view(record_of(info))[..., 0]
    return {name: table[name] for name in FIELDS}


def rest_logits(fields: Arrays, info: StoreInfo) -> NDArray[np.float32]:
    """Return the logits that classes have which are not named, ``[B, C]``, those of named ones among them."""
    bits = shape_of(info).tail_bits
    codes = (fields["tail"][:, :, None] >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8((1 << bits) - 1)
    flat = codes.reshape(len(codes), -1)[:, : info.num_classes]
    found: NDArray[np.float32] = np.take_along_axis(fields["rest"], flat.astype(np.intp), axis=1)
    return found


def mean_logits(fields: Arrays) -> NDArray[np.float64]:
    """Return the mean logits of the named classes, float64 ``[B, M]``."""
    scales = fields["scales"].astype(np.float64)
    return scales[:, :1] - scales[:, 1:2] * fields["means"]


def rebuild(records: NDArray[np.uint8], info: StoreInfo) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Return the named classes ``[B, M]`` of records ``[B, L]``, and their logits ``[B, M, H, W]``."""
    shape, (height, width) = shape_of(info), info.map_size
    fields = split(records, info)
    logits = np.empty((len(records), shape.classes, height, width))
    logits[:] = mean_logits(fields)[:, :, None, None]
    down, across = cosines(height, shape.frequencies[0]), cosines(width, shape.frequencies[1])
    patterns = np.einsum("bruv,yu,xv->bryx", fields["patterns"] / ONE, down, across, optimize=True)
    weights = fields["weights"] * fields["scales"][:, 2, None, None].astype(np.float64)
    logits[:, : shape.shaped] += np.einsum("bpr,bryx->bpyx", weights, patterns, optimize=True)
    return fields["classes"], logits


def _best(
    classes: NDArray[np.uint16], logits: NDArray[np.float64], top_k: int
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the K best of the named classes at every location, ties by lower class; 65535 at 0 where there are fewer.

    Logit and class go into one whole number: to sort those is several times as fast as to sort places by logits.
    """
    count, named, height, width = logits.shape
    scores = logits.astype(np.float32) + np.float32(0)  # + 0 turns -0.0, whose bits sort elsewhere, into 0.0
    keys = _ordered(scores.view(np.int32)).astype(np.int64) << 16
    keys |= (NO_CLASS - classes.astype(np.int64))[:, :, None, None]
    keys[classes == NO_CLASS] = np.iinfo(np.int64).min
    kept = min(top_k, named)
    by_location = np.ascontiguousarray(np.moveaxis(keys, 1, -1))
    by_location.sort(axis=-1)
    best = np.moveaxis(by_location[..., : -kept - 1 : -1], -1, 1)
    found = np.full((count, top_k, height, width), NO_CLASS, np.uint16)
    found_scores = np.zeros((count, top_k, height, width), np.float32)
    there = best != np.iinfo(np.int64).min
    found[:, :kept] = np.where(there, NO_CLASS - (best & 0xFFFF), NO_CLASS)
    found_scores[:, :kept] = np.where(there, _ordered((best >> 16).astype(np.int32)).view(np.float32), 0)
    return found, found_scores


def _ordered(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn the bits of floats into numbers of the same order; and back."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _first(flags: NDArray[np.bool_]) -> int:
    """The first row of flags ``[B, ...]`` with one set."""
    return int(np.argmax(flags.any(axis=1)))
