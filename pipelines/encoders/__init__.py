"""Dense logits -> stored arrays: the writing half of each encoding in `labelstore.encodings`, under the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labelstore.encodings import find_encoding
from labelstore.encodings.spectral import ARRAY
from labelstore.pipelines.encoders import spectral, topk
from labelstore.pipelines.encoders.listed import LARGEST_SCORE
from labelstore.schema import StoreInfo

Arrays = dict[str, NDArray[Any]]

__all__ = ["ENCODERS", "encode", "is_usable"]


def encode(logits: Tensor, info: StoreInfo) -> Arrays:
    """Return the arrays that the store keeps of dense logits ``[B, C, H, W]`` (finite), in its dtypes, in host memory."""
    dtypes = {spec.name: spec.numpy_dtype for spec in find_encoding(info.encoding, "encode").arrays(info)}
    return {name: np.asarray(array, dtypes[name]) for name, array in ENCODERS[info.encoding](logits, info).items()}


def is_usable(logits: Tensor) -> Tensor:
    """Whether each image's logits ``[B, C, H, W]`` can be kept, bool ``[B]``."""
    return (logits.abs() <= LARGEST_SCORE).flatten(1).all(dim=1)  # false for NaN too


def _topk(logits: Tensor, info: StoreInfo) -> Arrays:
    return {name: part.cpu().numpy() for name, part in topk.encode(logits, info.top_k, info.baseline).items()}


def _spectral(logits: Tensor, info: StoreInfo) -> Arrays:
    return {ARRAY: spectral.encode(logits, info)}


ENCODERS: dict[str, Callable[[Tensor, StoreInfo], Arrays]] = {"topk": _topk, "spectral": _spectral}
