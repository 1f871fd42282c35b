"""In what precision annotators run: mixed where the device is faster so, but never at the head, whose logits are stored."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from labelstore.errors import OptionError
from labelstore.pipelines.annotators.spec import PRECISIONS

_DTYPES = {"bfloat16": torch.bfloat16}


def fit_precision(chosen: str | None, device: torch.device) -> str:
    """Return what to run in: the choice, else bfloat16 on a CUDA device that has it.

    Raises
    ------
    OptionError
        It is unknown.
    """
    if chosen is None:
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if chosen not in PRECISIONS:
        raise OptionError(f"--precision {chosen}: expected {' or '.join(PRECISIONS)}")
    return chosen


def mixed(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Run a network in a precision inside."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def in_full(device_type: str) -> AbstractContextManager[object]:
    """Run in float32 inside, also within `mixed`: bfloat16 has 8 bits, a logit of 10 would be off by 0.03."""
    return torch.autocast(device_type, enabled=False)


def prepare_device(device: torch.device, precision: str) -> None:
    """Let matrix products of a device in mixed precision take TF32 where they are in float32: inputs of 10 bits, sums of 23."""
    if device.type == "cuda" and precision != "float32":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
