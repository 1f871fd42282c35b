"""Watching the torch calls of a forward pass, and answering them.

Modules are watched where Python calls torch; programs out of a file, which Python does not run, where torch dispatches to
kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Args = Sequence[Any]
Kwargs = Mapping[str, Any]


class Calls(Protocol):
    """Answers the calls of one forward pass, on one thread."""

    def answer(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """What a torch call gives."""
        ...


class _FunctionMode(TorchFunctionMode):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        return self._calls.answer(func, args, kwargs or {})


class _DispatchMode(TorchDispatchMode):
    def __init__(self, calls: Calls) -> None:
        initialise: Any = super().__init__  # untyped in torch
        initialise()
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        return self._calls.answer(func, args, kwargs or {})


def watched(module: nn.Module, calls: Calls) -> AbstractContextManager[object]:
    """Let `calls` answer what is called inside, as far as it can be seen of a module."""
    return (_DispatchMode if getattr(module, "sees_dispatch_only", False) else _FunctionMode)(calls)
