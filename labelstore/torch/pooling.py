"""Soft labels pooled from label maps, on the device where the tensors are.

What `labelstore.LabelMapReader.pool` does in NumPy, and token labels besides: RoIAlign (``sampling_ratio=-1, aligned=False``)
of the dense map, which is linear in the map and separable, so that the dense map is never made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from labelstore.errors import BoxError, DamagedError, MapsError, OptionError
from labelstore.schema import NO_CLASS


@torch.no_grad()
def pool(
    maps: Mapping[str, Tensor],
    boxes: Tensor,
    num_classes: int,
    *,
    grid: tuple[int, int] | None = None,
    temperature: float = 1.0,
    class_map: Tensor | None = None,
) -> Tensor:
    """Return the soft labels of crops, or of the patches of crops.

    Works under `torch.compile` and autocast; carries no gradient. On CUDA the last bits depend on the order of additions.

    Parameters
    ----------
    maps
        A batch of maps, all on one device: ``classes`` ``[B, K, H, W]``, whole numbers, 65535 for no class, and ``scores``,
        either floating ``[B, K, H, W]`` (`LabelMapReader.read`) or uint8 rank gaps with ``score_range`` ``[B, 2]``
        (`LabelMapReader.read_packed`, 3.4 kB an image of 15x15). Other keys are ignored.
    boxes
        ``[B, 4]``, floating: ``(x1, y1, x2, y2)``, fractions of the original image, clipped to it; ``x1 > x2`` for a mirrored
        crop.
    num_classes
        C of the store.
    grid
        ``(gh, gw)``: a label for each patch of the crop (token labels, Jiang et al. 2021), mirrored as the crop is.
    temperature
        Divides the pooled logits before the softmax.
    class_map
        ``[D]``: the store's class of each wanted column; the softmax is over these alone.

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
    logits = pool_logits(maps, boxes, num_classes, grid=grid, class_map=class_map)
    return torch.softmax(logits if temperature == 1 else logits / temperature, dim=-1)


@torch.no_grad()
def pool_logits(
    maps: Mapping[str, Tensor],
    boxes: Tensor,
    num_classes: int,
    *,
    grid: tuple[int, int] | None = None,
    class_map: Tensor | None = None,
) -> Tensor:
    """Return the pooled logits, float32; classes that no location lists are at 0. As `pool`, before the softmax."""
    classes, scores = _check_maps(maps, boxes)
    rows, columns = _check_grid(grid)
    if boxes.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_values(classes, boxes, num_classes)
    height, width = classes.shape[2:]
    given = boxes.double()
    wy = axis_weights(given[:, 1], given[:, 3], height, rows)
    wx = axis_weights(given[:, 0], given[:, 2], width, columns)
    weights = (wy[:, :, None, :, None] * wx[:, None, :, None, :]).float().reshape(len(boxes), rows * columns, height * width)
    logits = weights.new_zeros(len(boxes), rows * columns, num_classes + 1)  # the last collects what has no class
    for rank in range(classes.shape[1]):  # a rank at a time: values of all of them would take K times the memory
        chosen = classes[:, rank].reshape(len(boxes), 1, -1).long().clamp(max=num_classes)
        values = weights * scores[:, rank].reshape(len(boxes), 1, -1)
        logits.scatter_add_(2, chosen.expand(-1, rows * columns, -1), values)
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


def _check_maps(maps: Mapping[str, Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return classes and float32 scores, shapes and dtypes checked."""
    missing = [name for name in ("classes", "scores") if name not in maps]
    if missing:
        raise MapsError(f"maps: expected 'classes' and 'scores', got {sorted(maps)}")
    classes, scores = maps["classes"], maps["scores"]
    if classes.ndim != 4 or classes.shape != scores.shape:
        raise MapsError(f"maps: expected [B, K, H, W] twice, got {list(classes.shape)} and {list(scores.shape)}")
    if classes.dtype not in (torch.uint16, torch.int32, torch.int64):
        raise MapsError(f"maps: classes: expected uint16, int32 or int64, got {classes.dtype}")
    if boxes.shape != (len(classes), 4) or not boxes.is_floating_point():
        raise BoxError(f"boxes: expected floating [{len(classes)}, 4], got {boxes.dtype} {list(boxes.shape)}")
    if scores.is_floating_point():
        return classes, scores.float()
    ranges = maps.get("score_range")
    if scores.dtype != torch.uint8 or ranges is None or ranges.shape != (len(classes), 2):
        shape = None if ranges is None else list(ranges.shape)
        expected = f"floating scores, or uint8 with 'score_range' [{len(classes)}, 2]"
        raise MapsError(f"maps: expected {expected}, got {scores.dtype} and {shape}")
    top, step = ranges.float()[:, :, None, None, None].unbind(1)
    return classes, top - step * scores.cumsum(dim=1, dtype=torch.int32).float()


def _check_grid(grid: tuple[int, int] | None) -> tuple[int, int]:
    if grid is None:
        return 1, 1
    if len(grid) != 2 or not all(isinstance(cells, int) and cells >= 1 for cells in grid):
        raise OptionError(f"grid: expected (rows, columns), each at least 1, got {grid!r}")
    return grid


def _check_values(classes: Tensor, boxes: Tensor, num_classes: int) -> None:
    low = torch.minimum(boxes[:, :2], boxes[:, 2:]).clamp(min=0)
    high = torch.maximum(boxes[:, :2], boxes[:, 2:]).clamp(max=1)
    good = boxes.isfinite().all(dim=1) & (low < high).all(dim=1)
    if not good.all():
        row = int(good.logical_not().nonzero()[0])
        raise BoxError(
            f"boxes[{row}] = {boxes[row].tolist()}: expected four finite fractions of the image's width and height that leave "
            "an area inside [0, 1]"
        )
    numbers = classes.long()
    outside = (numbers < 0) | ((numbers >= num_classes) & (numbers != NO_CLASS))
    if outside.any():
        worst = int(numbers[outside][0])
        raise DamagedError(f"maps: classes: expected 0..{num_classes - 1}, or {NO_CLASS} for none, found {worst}")
