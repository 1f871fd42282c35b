"""Pooling of encoding ``spectral`` compiled by numba: a few hundred multiplications a row, an exp for every named class.

Does what `Spectral.pool` and `softmax` do. Needs the extra ``[fast]``; importing this module imports numba and compiles, or
loads what was compiled before.
"""

from __future__ import annotations

from math import exp, inf
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from labelstore.encodings.compiling import axis_weights, compiled, given

_SIGNATURE = numba.void(
    given(numba.float32, 2, "A"),
    given(numba.float32, 2, "A"),
    given(numba.uint16, 2, "A"),
    given(numba.uint8, 2, "A"),
    given(numba.int8, 3, "A"),
    given(numba.int8, 4, "A"),
    given(numba.uint8, 2, "A"),
    given(numba.float64, 2),
    given(numba.float64, 2),
    given(numba.float64, 2),
    numba.float64,
    numba.float32[:, ::1],
)
_ONE = 127.0


@compiled(inline="always")
def _pool_axis(
    weights: NDArray[np.float64], first: int, last: int, cosines: NDArray[np.float64], pooled: NDArray[np.float64]
) -> None:
    """Write an axis's cosines, weighted by RoIAlign."""
    pooled[:] = 0.0
    for place in range(first, last):
        for frequency in range(len(pooled)):
            pooled[frequency] += weights[place] * cosines[place, frequency]


@compiled(inline="always")
def _mix(
    patterns: NDArray[np.int8], down: NDArray[np.float64], across: NDArray[np.float64], unit: float, mix: NDArray[np.float64]
) -> None:
    """Write the pooled patterns, in units of a class's weights."""
    for pattern in range(len(mix)):
        total = 0.0
        for u in range(len(down)):
            line = 0.0
            for v in range(len(across)):
                line += patterns[pattern, u, v] * across[v]
            total += line * down[u]
        mix[pattern] = total * unit


@compiled(inline="always")
def _logits(
    scale: tuple[float, float],
    classes: NDArray[np.uint16],
    means: NDArray[np.uint8],
    weights: NDArray[np.int8],
    mix: NDArray[np.float64],
    num_classes: int,
    values: NDArray[np.float64],
) -> None:
    """Write the pooled logits of the named classes; minus infinity where no class is named."""
    for rank in range(len(values)):
        value = scale[0] - scale[1] * means[rank]
        if rank < len(weights):
            for pattern in range(len(mix)):
                value += weights[rank, pattern] * mix[pattern]
        values[rank] = value if classes[rank] < num_classes else -inf


@compiled(inline="always")
def _softmax(values: NDArray[np.float64], classes: NDArray[np.uint16], temperature: float, out: NDArray[np.float32]) -> None:
    """Write the softmax of logits of the named classes, where all others have logit 0."""
    most, named = values.max(), 0
    for rank in range(len(values)):
        named += values[rank] > -inf
    if named < len(out):
        most = max(most, 0.0)
    absent = exp(-most / temperature) if named < len(out) else 0.0
    total = (len(out) - named) * absent
    for rank in range(len(values)):
        values[rank] = exp((values[rank] - most) / temperature)
        total += values[rank]
    out[:] = absent / total
    for rank in range(len(values)):
        if classes[rank] < len(out):
            out[classes[rank]] = values[rank] / total


@compiled(inline="always")
def _code(tail: NDArray[np.uint8], bits: int, place: int) -> Any:
    """Return a class's number of so many bits."""
    return (np.int64(tail[place * bits >> 3]) >> (place * bits & 7)) & ((1 << bits) - 1)


@compiled(inline="always")
def _pairs(byte: Any) -> Any:
    """Count the bits that are set among every other of a byte's, from the lowest."""
    byte = (byte & 0x11) + ((byte >> 2) & 0x11)
    return (byte & 0xF) + (byte >> 4)


@compiled(inline="always")
def _count_codes(tail: NDArray[np.uint8], bits: int, classes: int, counts: NDArray[np.int64]) -> None:
    """Count the classes that have each number; whole bytes at once."""
    full = classes * bits >> 3
    low, high, both = 0, 0, 0
    for place in range(full):
        byte = np.int64(tail[place])
        low += _pairs(byte)
        high += _pairs(byte >> 1)
        both += _pairs(byte & (byte >> 1))
    if bits == 1:
        counts[1] = low + high
    else:
        counts[1], counts[2], counts[3] = low - both, high - both, both
    counts[0] = full * 8 // bits - counts[1:].sum()
    for place in range(full * 8 // bits, classes):
        counts[_code(tail, bits, place)] += 1


@compiled(inline="always")
def _write_rest(tail: NDArray[np.uint8], likely: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Write what each class has that is not named, and what named ones would have."""
    if len(likely) == 2:
        low, step = np.float32(likely[0]), np.float32(likely[1] - likely[0])
        for byte in range(len(out) >> 3):
            packed = np.int64(tail[byte])
            for place in range(8):
                out[byte * 8 + place] = low + np.float32((packed >> place) & 1) * step
        done = len(out) & ~7
    else:
        first, second, third, fourth = likely
        for byte in range(len(out) >> 2):
            packed = np.int64(tail[byte])
            for place in range(4):
                code = (packed >> (2 * place)) & 3
                out[byte * 4 + place] = (first if code == 0 else second) if code < 2 else (third if code == 2 else fourth)
        done = len(out) & ~3
    for place in range(done, len(out)):
        out[place] = likely[_code(tail, len(likely) >> 1, place)]


@compiled(inline="always")
def _softmax_over_rest(
    values: NDArray[np.float64],
    classes: NDArray[np.uint16],
    rest: NDArray[np.float32],
    tail: NDArray[np.uint8],
    temperature: float,
    likely: NDArray[np.float64],
    counts: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Write the softmax of logits of the named classes, where each other one has the logit that its bits say."""
    bits = len(rest) >> 1
    _count_codes(tail, bits, len(out), counts)
    for rank in range(len(values)):
        if classes[rank] < len(out):
            counts[_code(tail, bits, classes[rank])] -= 1
    most, total = values.max(), 0.0
    for level in range(len(rest)):
        if counts[level] > 0:
            most = max(most, np.float64(rest[level]))
    for rank in range(len(values)):
        values[rank] = exp((values[rank] - most) / temperature)
        total += values[rank]
    for level in range(len(rest)):
        likely[level] = exp((rest[level] - most) / temperature) if counts[level] > 0 else 0.0
        total += counts[level] * likely[level]
    likely /= total
    _write_rest(tail, likely, out)
    for rank in range(len(values)):
        if classes[rank] < len(out):
            out[classes[rank]] = values[rank] / total


@compiled(_SIGNATURE)
def soft_labels(
    scales: NDArray[np.float32],
    rest: NDArray[np.float32],
    classes: NDArray[np.uint16],
    means: NDArray[np.uint8],
    weights: NDArray[np.int8],
    patterns: NDArray[np.int8],
    tail: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    cosines_y: NDArray[np.float64],
    cosines_x: NDArray[np.float64],
    temperature: float,
    out: NDArray[np.float32],
) -> None:
    """Write soft labels ``[B, C]`` to ``out``.

    Parameters
    ----------
    scales, rest, classes, means, weights, patterns, tail
        Checked fields of the records (`labelstore.encodings.spectral.split`).
    boxes
        ``[B, 4]``, checked.
    cosines_y, cosines_x
        ``[H, kh]`` and ``[W, kw]``.
    """
    num_classes = out.shape[1]
    rows, columns = np.empty(len(cosines_y)), np.empty(len(cosines_x))
    down, across = np.empty(cosines_y.shape[1]), np.empty(cosines_x.shape[1])
    mix, values, likely = np.empty(patterns.shape[1]), np.empty(classes.shape[1]), np.empty(rest.shape[1])
    counts = np.empty(rest.shape[1], np.int64)
    for item in range(len(classes)):
        first, last = axis_weights(boxes[item, 1], boxes[item, 3], rows)
        _pool_axis(rows, first, last, cosines_y, down)
        first, last = axis_weights(boxes[item, 0], boxes[item, 2], columns)
        _pool_axis(columns, first, last, cosines_x, across)
        _mix(patterns[item], down, across, np.float64(scales[item, 2]) / _ONE, mix)
        means_at = np.float64(scales[item, 0]), np.float64(scales[item, 1])
        _logits(means_at, classes[item], means[item], weights[item], mix, num_classes, values)
        if len(rest[item]):
            _softmax_over_rest(values, classes[item], rest[item], tail[item], temperature, likely, counts, out[item])
        else:
            _softmax(values, classes[item], temperature, out[item])
