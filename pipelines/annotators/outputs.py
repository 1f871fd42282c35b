"""Networks that compute in another precision, or return more than a tensor of scores: made to take and give float32 tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

PARTS = ("forward", "forward_head", "forward_dense")
"""The methods of a network that return scores."""


def replace_parts(module: nn.Module, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put something around the methods of a network that return scores."""
    for part in PARTS:
        method = getattr(module, part, None)
        if callable(method):
            setattr(module, part, around(method))


def in_float32(module: nn.Module, fixed: bool) -> str:
    """Have a network take float32 images, and say what was done about it; '' if nothing had to be.

    A module is cast; a program (`fixed`) is run as it was saved, and its input is cast.
    """
    values = [*module.parameters(), *module.buffers()]
    dtypes = {value.dtype for value in values if value.is_floating_point()} - {torch.float32}
    if not dtypes:
        return ""
    names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    if not fixed:
        module.float()
        return f"its weights are {names}: cast to float32"
    if any(value.dtype == torch.float32 for value in module.parameters()):
        return ""  # it casts by itself
    dtype = next(iter(sorted(dtypes, key=str)))

    def casting(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda batch: method(batch.to(dtype))

    replace_parts(module, casting)
    return f"saved in {names}, and run in it: images are cast"


def scores_of(output: Any) -> Any:
    """Return the logits of an output that has them by name, as those of transformers' classifiers do; else the output."""
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else output


def return_logits(module: nn.Module) -> None:
    """Have a network return its output's ``logits``."""

    def taking(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: scores_of(method(*arguments, **named))

    replace_parts(module, taking)
