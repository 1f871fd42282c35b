"""Finding a network's last global pooling, and putting every location in its place.

A mode sees the torch calls of a forward pass. One pass notes the calls that reduce a feature map to a vector an image; later
passes hand the rest of the network one row a location where the last of them was. It needs no knowledge of the network's
modules, and leaves them as they are. Modules are watched where Python calls torch; programs out of a file, which Python does
not run, where torch dispatches to kernels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from labelstore.pipelines.annotators.calls import Args, Kwargs, watched
from labelstore.pipelines.annotators.locations import Locations, guess_prefix, map_locations, token_locations


@dataclass(frozen=True)
class Pooling:
    """What a call reduces: the locations, and whether their axes stay behind with length 1."""

    locations: Locations
    keepdim: bool

    def rows(self, features: Tensor) -> Tensor:
        """What the call would return if every location were an image of its own."""
        vectors = self.locations.vectors(features)
        return self.locations.elements(vectors) if self.keepdim else vectors


@dataclass(frozen=True)
class PoolingSite:
    """One pooling call of a network: the `ordinal`-th that its forward pass makes."""

    ordinal: int
    pooling: Pooling


def find_last_pooling(module: nn.Module, batch: Tensor) -> PoolingSite | None:
    """The last call of ``module(batch)`` that pools more than one location into one vector an image."""
    recorder = _Recorder()
    with watched(module, recorder):
        module(batch)
    return recorder.last


def forward_rows(module: nn.Module, batch: Tensor, site: PoolingSite, *, with_pooled: bool = False) -> Tensor:
    """``module(batch)`` with one row a location, ``[B * H * W, C]``; `with_pooled` appends the images' own B rows."""
    with watched(module, _Replacer(site, with_pooled)):
        output: Tensor = module(batch)
    return output


class _Calls:
    """Counts the pooling calls of one forward pass, and answers them; for one pass and one thread."""

    def __init__(self) -> None:
        self.calls = 0

    def answer(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """What any torch call gives."""
        matcher = _MATCHERS.get(func)
        pooling = matcher(args, kwargs) if matcher else None
        if pooling is None or pooling.locations.count < 2:
            return func(*args, **kwargs)
        self.calls += 1
        return self.pooled(pooling, func, args, kwargs)

    @abstractmethod
    def pooled(self, pooling: Pooling, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """What a global pooling call gives."""


class _Recorder(_Calls):
    last: PoolingSite | None = None

    def pooled(self, pooling: Pooling, func: Any, args: Args, kwargs: Kwargs) -> Any:
        self.last = PoolingSite(self.calls, pooling)
        return func(*args, **kwargs)


class _Replacer(_Calls):
    def __init__(self, site: PoolingSite, with_pooled: bool) -> None:
        super().__init__()
        self.site = site
        self.with_pooled = with_pooled

    def pooled(self, pooling: Pooling, func: Any, args: Args, kwargs: Kwargs) -> Any:
        if self.calls != self.site.ordinal:
            return func(*args, **kwargs)
        features = _features(args, kwargs)
        rows = pooling.rows(features)
        if self.with_pooled:
            rows = torch.cat([rows, func(*args, **kwargs)])
        # The rest is the head: in full precision until whoever asked for another one leaves its context.
        if torch.amp.is_autocast_available(features.device.type):
            torch.set_autocast_enabled(features.device.type, False)
        return rows.float()


def _argument(args: Args, kwargs: Kwargs, position: int, *names: str, default: Any = None) -> Any:
    if len(args) > position:
        return args[position]
    return next((kwargs[name] for name in names if name in kwargs), default)


def _features(args: Args, kwargs: Kwargs) -> Any:
    return _argument(args, kwargs, 0, "input", "self")


def _sizes(value: Any, length: int) -> tuple[int, ...]:
    return tuple(value) * (length if len(value) == 1 else 1) if isinstance(value, Sequence) else (value,) * length


def _adaptive_2d(args: Args, kwargs: Kwargs) -> Pooling | None:
    features, size = _features(args, kwargs), _argument(args, kwargs, 1, "output_size")
    if features.ndim != 4 or _sizes(size, 2) != (1, 1):
        return None
    return Pooling(map_locations(features, "NCHW"), keepdim=True)


def _adaptive_1d(args: Args, kwargs: Kwargs) -> Pooling | None:
    features, size = _features(args, kwargs), _argument(args, kwargs, 1, "output_size")
    if features.ndim != 3 or _sizes(size, 1) != (1,):
        return None
    tokens = token_locations(features.shape[2], prefix=0)
    return Pooling(Locations("NCL", tokens.grid), keepdim=True) if tokens else None


def _average_2d(args: Args, kwargs: Kwargs) -> Pooling | None:
    features, kernel = _features(args, kwargs), _argument(args, kwargs, 1, "kernel_size")
    padding = _argument(args, kwargs, 3, "padding", default=0)
    divisor = _argument(args, kwargs, 6, "divisor_override")
    covers = features.ndim == 4 and _sizes(kernel, 2) == tuple(features.shape[2:])
    if not covers or any(_sizes(padding, 2)) or divisor:
        return None
    return Pooling(map_locations(features, "NCHW"), keepdim=True)


def _mean(args: Args, kwargs: Kwargs) -> Pooling | None:
    features, axes = _features(args, kwargs), _argument(args, kwargs, 1, "dim", "axis")
    if axes is None or features.ndim not in (3, 4):
        return None
    reduced = {axis % features.ndim for axis in _sizes(axes, 1)}
    keepdim = bool(_argument(args, kwargs, 2, "keepdim", default=False))
    if features.ndim == 3:
        tokens = token_locations(features.shape[1], prefix=0) if reduced == {1} else None
        return Pooling(tokens, keepdim) if tokens else None
    if reduced == {2, 3}:
        return Pooling(map_locations(features, "NCHW"), keepdim)
    return Pooling(map_locations(features, "NHWC"), keepdim) if reduced == {1, 2} else None


def _item(args: Args, kwargs: Kwargs) -> Pooling | None:
    """``x[:, 0]`` and ``x[:, 0, :]`` on tokens: the class token is chosen."""
    features, index = args
    everything = slice(None)
    if not isinstance(index, tuple) or len(index) not in (2, 3) or isinstance(index[1], (bool, Tensor)):
        return None
    if any(not isinstance(part, slice) or part != everything for part in (index[0], *index[2:])) or index[1] != 0:
        return None
    return _class_token(features)


def _select(args: Args, kwargs: Kwargs) -> Pooling | None:
    features, axis, index = (_argument(args, kwargs, i, name) for i, name in enumerate(("input", "dim", "index")))
    return _class_token(features) if axis == 1 and index == 0 else None


def _class_token(features: Tensor) -> Pooling | None:
    prefix = guess_prefix(features.shape[1], least=1) if features.ndim == 3 else None
    tokens = None if prefix is None else token_locations(features.shape[1], prefix)
    return Pooling(tokens, keepdim=False) if tokens else None


_MATCHERS: dict[Any, Callable[[Args, Kwargs], Pooling | None]] = {
    functional.adaptive_avg_pool2d: _adaptive_2d,
    torch.adaptive_avg_pool1d: _adaptive_1d,
    functional.avg_pool2d: _average_2d,
    torch.mean: _mean,
    Tensor.mean: _mean,
    Tensor.__getitem__: _item,
    torch.select: _select,
    Tensor.select: _select,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_2d,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_2d,
    torch.ops.aten.adaptive_avg_pool1d.default: _adaptive_1d,
    torch.ops.aten.avg_pool2d.default: _average_2d,
    torch.ops.aten.mean.dim: _mean,
    torch.ops.aten.select.int: _select,
}
