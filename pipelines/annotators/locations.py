"""Feature tensors seen as locations: where they lie, and how each becomes a batch element of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal

from torch import Tensor

Layout = Literal["NCHW", "NHWC", "NLC", "NCL"]

MAX_PREFIX = 16  # class, distillation and register tokens; the largest count in use is 5


@dataclass(frozen=True)
class Locations:
    """The grid of locations in a feature tensor.

    Parameters
    ----------
    layout
        ``NCHW`` and ``NHWC`` are maps; ``NLC`` and ``NCL`` are sequences in row-major order.
    grid
        (height, width) in locations.
    prefix
        Tokens in front of the grid's (``NLC`` only).
    """

    layout: Layout
    grid: tuple[int, int]
    prefix: int = 0

    @property
    def count(self) -> int:
        """Locations of one image."""
        return self.grid[0] * self.grid[1]

    def vectors(self, features: Tensor) -> Tensor:
        """Every location's feature vector, ``[B * H * W, C]``; a view where the layout allows."""
        if self.layout == "NCHW":
            features = features.permute(0, 2, 3, 1)
        elif self.layout == "NCL":
            features = features.transpose(1, 2)
        elif self.layout == "NLC":
            features = features[:, self.prefix :]
        return features.reshape(-1, features.shape[-1])

    def elements(self, vectors: Tensor) -> Tensor:
        """Vectors ``[R, C]`` as R feature tensors of one location each, in this layout and without a prefix."""
        if self.layout == "NCHW":
            return vectors[:, :, None, None]
        if self.layout == "NHWC":
            return vectors[:, None, None, :]
        return vectors[:, None, :] if self.layout == "NLC" else vectors[:, :, None]

    def logit_map(self, logits: Tensor) -> Tensor:
        """Rows of logits ``[B * H * W, C]`` as float32 ``[B, C, H, W]`` (a view with the classes innermost)."""
        return logits.float().reshape(-1, *self.grid, logits.shape[-1]).permute(0, 3, 1, 2)


def map_locations(features: Tensor, layout: Literal["NCHW", "NHWC"]) -> Locations:
    """The grid of a 4-d feature map."""
    height, width = features.shape[2:] if layout == "NCHW" else features.shape[1:3]
    return Locations(layout, (height, width))


def token_locations(length: int, prefix: int, grid: tuple[int, int] | None = None) -> Locations | None:
    """The grid behind `prefix` tokens: `grid` if it has that many locations, else a square; None if neither fits."""
    count = length - prefix
    if grid is not None and grid[0] * grid[1] == count:
        return Locations("NLC", grid, prefix)
    side = isqrt(max(count, 0))
    return Locations("NLC", (side, side), prefix) if side and side * side == count else None


def guess_prefix(length: int, least: int) -> int | None:
    """How many of `length` tokens stand before a square grid: at least `least`, at most `MAX_PREFIX`; None: no fit."""
    prefix = length - isqrt(max(length - least, 0)) ** 2
    return prefix if least <= prefix <= MAX_PREFIX and prefix < length else None
