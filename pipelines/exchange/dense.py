"""Stored maps back to dense logits, those that a store's readers pool: what another encoding starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.encodings import find_encoding
from labelstore.encodings.spectral import ARRAY, rebuild, rest_logits, shape_of, split
from labelstore.schema import NO_CLASS, StoreInfo


def dense_logits(arrays: Mapping[str, NDArray[Any]], info: StoreInfo) -> NDArray[np.float32]:
    """Return float32 ``[B, C, H, W]`` of checked arrays; classes that are not kept are at what the encoding says of them."""
    if info.encoding == "spectral":
        classes, logits = rebuild(arrays[ARRAY], info)
        rest = rest_logits(split(arrays[ARRAY], info), info) if shape_of(info).tail_bits else None
        named = np.broadcast_to(classes[:, :, None, None], logits.shape)
    else:
        found = find_encoding(info.encoding, "dense").decode(arrays, info)
        named, logits, rest = found.classes, found.scores.astype(np.float64), None
    count, (height, width) = len(named), info.map_size
    dense = np.zeros((count, info.num_classes + 1, height, width), np.float32)  # the last one for what is no class
    if rest is not None:
        dense[:, :-1] = rest[:, :, None, None]
    np.put_along_axis(dense, np.where(named == NO_CLASS, info.num_classes, named).astype(np.intp), logits, axis=1)
    return dense[:, :-1]
