"""Soft labels pooled from label maps, on the device where the tensors are.

What `labelstore.LabelMapReader.pool` does in NumPy, and token labels besides: RoIAlign (``sampling_ratio=-1, aligned=False``)
of the dense map, which is linear in the map and separable, so that the dense map is never made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from labelstore.errors import OptionError
from labelstore.torch.packed import (
    check_boxes,
    check_spectral,
    check_topk,
    check_values,
    pool_spectral,
    pool_topk,
)


@torch.no_grad()
def pool(
    maps: Mapping[str, Tensor],
    boxes: Tensor,
    num_classes: int,
    *,
    map_size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    temperature: float = 1.0,
    class_map: Tensor | None = None,
) -> Tensor:
    """Return the soft labels of crops, or of the patches of crops.

    Works under `torch.compile` and autocast; carries no gradient. On CUDA the last bits depend on the order of additions.

    Parameters
    ----------
    maps
        A batch of maps, all on one device, as `LabelMapReader.read_packed` gives them; or those of `LabelMapReader.read`:
        ``classes`` ``[B, K, H, W]``, whole numbers, 65535 for no class, and ``scores``, floating, the same shape. Other keys
        are ignored.
    boxes
        ``[B, 4]``, floating: ``(x1, y1, x2, y2)``, fractions of the original image, clipped to it; ``x1 > x2`` for a mirrored
        crop.
    num_classes
        C of the store.
    map_size
        ``(H, W)`` of the store's maps (`LabelMapReader.map_size`): needed for packed maps of encoding ``spectral``, whose
        shapes do not show it.
    grid
        ``(gh, gw)``: a label for each patch of the crop (token labels, Jiang et al. 2021), mirrored as the crop is.
    temperature
        Divides the pooled logits before the softmax.
    class_map
        ``[D]``: the store's class of each wanted column; the softmax is over these alone. ``[D, G]``: several classes a
        column, -1 after the last; their probabilities are added.

    Returns
    -------
    float32 ``[B, C]``, or ``[B, gh, gw, C]`` with ``grid`` (D in place of C with ``class_map``); the last axis sums to 1.

    Raises
    ------
    MapsError, OptionError
        Shapes, dtypes or settings that do not fit.
    BoxError, DamagedError
        Values: boxes that are not finite or leave nothing inside the image, classes that the store does not have. Looked for
        on the CPU alone: elsewhere it would make the device wait. There, such classes add nothing, and a box without area
        is one location.
    """
    if not 0 < temperature < math.inf:
        raise OptionError(f"temperature: expected a positive number, got {temperature!r}")
    several = class_map is not None and class_map.ndim == 2
    columns = class_map.clamp(min=0).flatten() if several and class_map is not None else class_map
    logits = pool_logits(maps, boxes, num_classes, map_size=map_size, grid=grid, class_map=columns)
    if several and class_map is not None:
        logits = logits.masked_fill(class_map.flatten() < 0, -math.inf)
    soft = torch.softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    return soft.unflatten(-1, class_map.shape).sum(dim=-1) if several and class_map is not None else soft


@torch.no_grad()
def pool_logits(
    maps: Mapping[str, Tensor],
    boxes: Tensor,
    num_classes: int,
    *,
    map_size: tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    class_map: Tensor | None = None,
) -> Tensor:
    """Return the pooled logits, float32; classes that are not listed are at 0. As `pool`, before the softmax; ``class_map`` is
    ``[D]``."""
    rows, columns = _check_grid(grid)
    spectral = "patterns" in maps
    height, width = check_spectral(maps, num_classes, map_size) if spectral else check_topk(maps)
    check_boxes(maps["classes"], boxes)
    if boxes.device.type == "cpu" and not torch.compiler.is_compiling():
        check_values(maps["classes"], boxes, num_classes)
    given = boxes.double()
    wy = axis_weights(given[:, 1], given[:, 3], height, rows)
    wx = axis_weights(given[:, 0], given[:, 2], width, columns)
    logits = (pool_spectral if spectral else pool_topk)(maps, wy, wx, num_classes)
    found = logits[..., :num_classes] if class_map is None else logits.index_select(2, class_map)
    return found[:, 0] if grid is None else found.reshape(len(boxes), rows, columns, -1)


def axis_weights(first: Tensor, second: Tensor, size: int, cells: int) -> Tensor:
    """Return RoIAlign's weights of one axis, float64 ``[B, cells, size]``, of intervals given as fractions of it.

    An interval with ``first > second`` is the same one, its cells in reverse order.
    """
    low, high = torch.minimum(first, second).clamp(min=0), torch.maximum(first, second).clamp(max=1)
    # The order of operations is that of torchvision's kernel: ceil() below turns a last-bit difference into a sample more.
    start = low * size - 0.5
    extent = ((high * size - 0.5) - start).clamp(min=1)
    samples = (extent / cells).ceil()[:, None, None]
    step = torch.arange(math.ceil(size / cells) + 1, device=first.device)
    cell = torch.arange(cells, device=first.device)[None, :, None]
    width = extent[:, None, None] / cells
    at = start[:, None, None] + cell * width + (step + 0.5) * width / samples
    counts = (step < samples) & (at <= size)  # the kernel drops samples beyond the map: only intervals grown to 1 have them
    nearness = 1 - (at.clamp(0, size - 1)[..., None] - torch.arange(size, device=first.device)).abs()
    weights = (nearness.clamp(min=0) * counts[..., None]).sum(dim=2) / samples
    return torch.where((first > second)[:, None, None], weights.flip(1), weights)


def _check_grid(grid: tuple[int, int] | None) -> tuple[int, int]:
    if grid is None:
        return 1, 1
    if len(grid) != 2 or not all(isinstance(cells, int) and cells >= 1 for cells in grid):
        raise OptionError(f"grid: expected (rows, columns), each at least 1, got {grid!r}")
    return grid
