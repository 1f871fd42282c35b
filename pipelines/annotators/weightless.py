"""A network's map without its weights: shapes alone for the trunk, random numbers for the head.

On torch's meta device a network takes no memory and a forward pass no arithmetic, so that even the largest one tells its shapes
in a second. But whether a head may be asked about one location shows in numbers only. Where a network has its head apart
(timm's interface), the head gets random weights and a random feature map, and the same tests as a real annotator's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from labelstore.pipelines.annotators.dense import find_route
from labelstore.pipelines.annotators.network import Network

_IMAGES = 2


@torch.inference_mode()
def build_weightless(build: Callable[[], Network]) -> Network:
    """What `build` makes, on the meta device. Changes settings of the process while it lasts: not for several threads."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # a constructor that computes with tensors: then those of its own have numbers
        with _parameters_on_meta():
            network = build()
        network.module.to("meta")
        return network


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Put parameters on the meta device as they are made inside, before they are filled; nothing else."""
    hook: Any = _on_meta  # torch's type forgets that what it returns is taken instead
    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _on_meta(_module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter:
    return parameter if parameter.is_meta else nn.Parameter(parameter.to("meta"), parameter.requires_grad)


@torch.inference_mode()
def find_map_size(network: Network) -> tuple[int, int]:
    """The grid of the dense logits of a network on the meta device, at its own input size.

    Raises
    ------
    AnnotatorError
        It has no per-location head.
    Exception
        Whatever a network raises that needs numbers to run.
    """
    size = network.preprocessing.input_size
    module: Any = network.module.eval()
    with torch.device("meta"):  # for tensors that a forward pass makes
        probe = torch.empty(_IMAGES, 3, size, size)
        if not all(callable(getattr(module, part, None)) for part in ("forward_features", "forward_head")):
            return find_route(module, probe, module(probe), network.name).map_size
        features = module.forward_features(probe)
    _run_head_alone(module, tree_map(_random_features, features))
    return find_route(module, probe, module(probe), network.name).map_size


def _random_features(value: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(value.shape, generator=generator) if isinstance(value, Tensor) else value


def _run_head_alone(module: Any, features: Any) -> None:
    """Put the same features in place of the trunk's, and random numbers in place of the head's weights."""
    forward_head, numbers = module.forward_head, _RandomNumbers()

    def with_numbers(features: Any) -> Any:
        with numbers:
            return forward_head(features)

    module.forward_features = lambda _: features
    module.forward_head = with_numbers
    module.forward = lambda _: with_numbers(features)


class _RandomNumbers(TorchFunctionMode):
    """Puts numbers in the place of tensors of the meta device, the same for each at every call."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(0)
        self._given: dict[int, tuple[Tensor, Tensor]] = {}  # with the tensor itself, so that its id stays its own

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map(self._number, (tuple(args), dict(kwargs or {})))
        return func(*args, **kwargs)

    def _number(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_meta:
            return value
        if id(value) not in self._given:
            # Positive, as variances must be; not near 0, which would hide what reads them.
            numbers = torch.rand(value.shape, generator=self._generator) + 0.1
            self._given[id(value)] = value, numbers.to(value.dtype)
        return self._given[id(value)][1]
