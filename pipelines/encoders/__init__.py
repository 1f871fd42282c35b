"""Dense logits -> stored arrays: the writing half of each encoding in `labelstore.encodings`, under the same name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from labelstore.encodings import find_encoding
from labelstore.pipelines.encoders import topk
from labelstore.schema import StoreInfo

ENCODERS = {"topk": lambda logits, info: topk.encode(logits, info.top_k, info.baseline)}

__all__ = ["ENCODERS", "encode"]


def encode(logits: Tensor, info: StoreInfo) -> dict[str, NDArray[Any]]:
    """Return the arrays that the store keeps of dense logits ``[B, C, H, W]`` (finite), in its dtypes, in host memory."""
    dtypes = {spec.name: spec.numpy_dtype for spec in find_encoding(info.encoding, "encode").arrays(info)}
    arrays = ENCODERS[info.encoding](logits, info)
    return {name: np.asarray(tensor.cpu().numpy(), dtypes[name]) for name, tensor in arrays.items()}
