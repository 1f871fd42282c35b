"""From a classifier to logits at every location, by mechanisms that know no model by name.

A route is decided once, on a probe batch, and tested there against the model's own output; afterwards a batch takes one
forward pass. In order of preference:

1. the network's own ``forward_dense``, or an output that is a map;
2. ``forward_features`` and ``forward_head`` (timm's interface): each location is a batch element for the head;
3. any other network: the last global pooling call is replaced by one row a location (`pooling`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.locations import Locations, guess_prefix, map_locations, token_locations
from labelstore.pipelines.annotators.pooling import PoolingSite, find_last_pooling, forward_rows
from labelstore.pipelines.annotators.precision import in_full

# Relative to the largest logit: float32 sums in another order differ by about 1e-6, but accelerators may multiply in
# TF32, which keeps 10 bits of mantissa.
TOLERANCE = 1e-4
ACCELERATOR_TOLERANCE = 5e-3

WHAT_WORKS = (
    "Networks work that classify one vector an image which is the average of their last feature map (ResNet, "
    "EfficientNet, ConvNeXt, Swin, ...) or of their tokens, or the class token (ViT); so do modules with a method "
    "forward_dense(x) -> [B, C, h, w]"
)


_ONE_VECTOR = (
    "its head reads more of an image than the one vector that was replaced, as heads do that join the class token and the mean "
    "of the patches (DINOv2) or average those of two tokens (DeiT with a teacher): give it a forward_dense"
)


class Route(Protocol):
    """A way to dense logits."""

    def dense(self, batch: Tensor) -> Tensor:
        """Logits of every location, float32 ``[B, C, h, w]``."""

    def probe(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """`dense`, and the images' own pooled vectors pushed through the same head as rows, ``[B, C]``."""


@dataclass(frozen=True)
class DenseRoute:
    """The route taken, with its errors on the probe batch, relative to the largest logit (NaN: not to be measured)."""

    dense: Callable[[Tensor], Tensor]
    linear_error: float
    row_error: float
    map_size: tuple[int, int]


class OwnDense:
    """The network's own ``forward_dense``."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def dense(self, batch: Tensor) -> Tensor:
        """See `Route`."""
        logits: Tensor = self.module.forward_dense(batch)
        return logits.float()

    def probe(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Route`; there is no head to test."""
        return self.dense(batch), None


class AlreadyDense:
    """A network whose output is a map."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def dense(self, batch: Tensor) -> Tensor:
        """See `Route`."""
        logits: Tensor = self.module(batch)
        return logits.float()

    def probe(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Route`; there is no head to test."""
        return self.dense(batch), None


class FeaturesThenHead:
    """``forward_features``, then ``forward_head`` on every location."""

    def __init__(self, module: Any, locations: Locations) -> None:
        self.module = module
        self.locations = locations

    def dense(self, batch: Tensor) -> Tensor:
        """See `Route`."""
        return self._dense(self.module.forward_features(batch))

    def _dense(self, features: Tensor) -> Tensor:
        elements = self.locations.elements(self.locations.vectors(features))
        if self.locations.prefix:  # the head may read the class token or average the patches: both are this location
            elements = elements.expand(-1, self.locations.prefix + 1, -1)
        with in_full(features.device.type):
            return self.locations.logit_map(self.module.forward_head(elements.float()))

    def probe(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Route`; the row is the averaged map, behind the image's own prefix tokens."""
        features = self.module.forward_features(batch)
        vectors = self.locations.vectors(features).reshape(len(batch), self.locations.count, -1).mean(1)
        pooled = self.locations.elements(vectors)
        if self.locations.prefix:
            pooled = torch.cat([features[:, : self.locations.prefix], pooled], dim=1)
        return self._dense(features), self.module.forward_head(pooled).float()


class RowsAtPooling:
    """The last global pooling call gives one row a location."""

    def __init__(self, module: nn.Module, site: PoolingSite) -> None:
        self.module = module
        self.site = site

    def dense(self, batch: Tensor) -> Tensor:
        """See `Route`."""
        return self.site.pooling.locations.logit_map(forward_rows(self.module, batch, self.site))

    def probe(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Route`; the pooled vectors are more rows of the same pass."""
        try:
            rows = forward_rows(self.module, batch, self.site, with_pooled=True)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{_ONE_VECTOR} ({_in_short(error)})") from error
        locations = self.site.pooling.locations
        if rows.ndim != 2 or len(rows) != len(batch) * (locations.count + 1):
            raise ValueError(f"rows for {locations.count} locations an image came out as {list(rows.shape)}")
        return locations.logit_map(rows[: -len(batch)]), rows[-len(batch) :].float()


def find_route(module: nn.Module, probe: Tensor, whole: Tensor, name: str) -> DenseRoute:
    """Decide how `module` gives dense logits.

    Parameters
    ----------
    module
        A classifier in eval mode. On the meta device, which has no numbers, shapes alone are tested.
    probe
        Random images ``[B, 3, S, S]``.
    whole
        ``module(probe)``: ``[B, C]``, or ``[B, C, h, w]`` of a network that is dense already.
    name
        The model's name for messages.

    Raises
    ------
    AnnotatorError
        No mechanism gives logits that agree with `whole`: neither their mean over the locations, nor the image's own
        pooled vector as one more row. Says what was tried, with the errors.
    """
    if whole.ndim == 4:
        return _tested(AlreadyDense(module), probe, whole.mean((2, 3)))
    failures = []
    for label, make in _candidates(module, probe):
        try:
            return _tested(make(), probe, whole)
        except Exception as error:  # whatever a foreign network raises on rows that it was not made for
            failures.append(f"{label}: {_in_short(error)}")
    raise AnnotatorError(f"{name} has no per-location head. Tried: {'; '.join(failures)}. {WHAT_WORKS}")


def _candidates(module: nn.Module, probe: Tensor) -> Iterator[tuple[str, Callable[[], Route]]]:
    if callable(getattr(module, "forward_dense", None)):
        yield "its own forward_dense", lambda: OwnDense(module)
        return
    if all(callable(getattr(module, part, None)) for part in ("forward_features", "forward_head")):
        yield "its own head on every location", lambda: FeaturesThenHead(module, _feature_locations(module, probe))
    yield "rows in place of its last global pooling", lambda: RowsAtPooling(module, _last_pooling(module, probe))


def _tested(route: Route, probe: Tensor, whole: Tensor) -> DenseRoute:
    dense, row = route.probe(probe)
    if dense.ndim != 4 or dense.shape[:2] != whole.shape:
        expected = f"[{whole.shape[0]}, {whole.shape[1]}, h, w]"
        raise ValueError(f"expected dense logits {expected}, got {list(dense.shape)}")
    height, width = dense.shape[2:]
    if height * width < 2:
        raise ValueError(f"the feature map has one location only at {probe.shape[-1]} px")
    if whole.is_meta:
        return DenseRoute(route.dense, float("nan"), float("nan"), (height, width))
    linear_error = relative_error(dense.mean((2, 3)), whole)
    row_error = float("nan") if row is None else relative_error(row, whole)
    # NaN is 'nothing to compare': logits that are not finite fail their images' rows later, not the run.
    tolerance = TOLERANCE if whole.device.type == "cpu" else ACCELERATOR_TOLERANCE
    if row is not None and linear_error > tolerance and row_error > tolerance:
        raise ValueError(
            f"the mean over the locations differs from the model's output by {linear_error:.2g}, the pooled vector "
            f"as a row by {row_error:.2g} (relative; at most {tolerance:g} expected)"
        )
    return DenseRoute(route.dense, linear_error, row_error, (height, width))


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value; NaN if none of the expected values is finite."""
    finite = expected.isfinite()
    if not finite.any():
        return float("nan")
    scale = expected[finite].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    difference = (got - expected)[finite].abs().nan_to_num(nan=float("inf"))
    return float(difference.max() / scale)


def _feature_locations(module: Any, probe: Tensor) -> Locations:
    """Read the grid from the real output of ``forward_features``."""
    features = module.forward_features(probe)
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"expected forward_features to give a map or tokens, got {got}")
    if features.ndim == 4:
        channels_last = features.shape[1] != module.num_features and features.shape[3] == module.num_features
        return map_locations(features, "NHWC" if channels_last else "NCHW")
    length = features.shape[1]
    prefix = getattr(module, "num_prefix_tokens", None)
    prefix = guess_prefix(length, least=0) if prefix is None else prefix
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    tokens = None if prefix is None else token_locations(length, prefix, grid)
    if tokens is None:
        raise ValueError(f"{length} tokens, {prefix} of them no locations, make no grid")
    return tokens


def _last_pooling(module: nn.Module, probe: Tensor) -> PoolingSite:
    site = find_last_pooling(module, probe)
    if site is None:
        raise ValueError(
            "found no call that pools more than one location into one vector (a classifier that reads its whole "
            "feature map at once, as VGG and AlexNet do, has no logits for one location)"
        )
    return site


def _in_short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text and not isinstance(error, ValueError) else str(error)[:400]
