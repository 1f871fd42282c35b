"""Maps as tensors, each encoding's: what they must be, and the logits pooled from them with RoIAlign's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from labelstore.encodings.spectral import FIELDS, ONE
from labelstore.errors import BoxError, DamagedError, MapsError
from labelstore.schema import NO_CLASS

Maps = Mapping[str, Tensor]
_TAIL_BITS = {0: 0, 2: 1, 4: 2}
"""By the number of logits that classes have which are not named."""


def check_topk(maps: Maps) -> tuple[int, int]:
    """Check shapes and dtypes; return the maps' size."""
    missing = [name for name in ("classes", "scores") if name not in maps]
    if missing:
        raise MapsError(f"maps: expected 'classes' and 'scores', or {_listed(FIELDS)}, got {sorted(maps)}")
    classes, scores = maps["classes"], maps["scores"]
    if classes.ndim != 4 or classes.shape != scores.shape:
        raise MapsError(f"maps: expected [B, K, H, W] twice, got {list(classes.shape)} and {list(scores.shape)}")
    _check_classes(classes)
    ranges = maps.get("score_range")
    if not scores.is_floating_point() and (scores.dtype != torch.uint8 or ranges is None or ranges.shape != (len(classes), 2)):
        shape = None if ranges is None else list(ranges.shape)
        expected = f"floating scores, or uint8 with 'score_range' [{len(classes)}, 2]"
        raise MapsError(f"maps: expected {expected}, got {scores.dtype} and {shape}")
    return classes.shape[2], classes.shape[3]


def check_spectral(maps: Maps, num_classes: int, map_size: tuple[int, int] | None) -> tuple[int, int]:
    """Check shapes and dtypes; return the maps' size."""
    missing = [name for name in FIELDS if name not in maps]
    if missing:
        raise MapsError(f"maps: expected {_listed(FIELDS)}, got {sorted(maps)}")
    if map_size is None:
        raise MapsError("maps of encoding spectral do not show their size: expected map_size=reader.map_size, got None")
    classes, weights, patterns = maps["classes"], maps["weights"], maps["patterns"]
    if classes.ndim != 2 or weights.ndim != 3 or patterns.ndim != 4:
        shapes = [list(part.shape) for part in (classes, weights, patterns)]
        raise MapsError(f"maps: expected classes [B, M], weights [B, P, R] and patterns [B, R, kh, kw], got {shapes}")
    (count, named), (shaped, mixed) = classes.shape, weights.shape[1:]
    rest = maps["rest"].shape[-1]
    if rest not in _TAIL_BITS:
        raise MapsError(f"maps: rest: expected [B, 0], [B, 2] or [B, 4], got {list(maps['rest'].shape)}")
    expected = {
        "scales": (count, 3),
        "rest": (count, rest),
        "tail": (count, -(-num_classes * _TAIL_BITS[rest] // 8)),
        "means": (count, named),
        "weights": (count, min(shaped, named), mixed),
        "patterns": (count, mixed, *patterns.shape[2:]),
    }
    for name, shape in expected.items():
        if maps[name].shape != shape:
            raise MapsError(f"maps: {name}: expected {list(shape)}, got {list(maps[name].shape)}")
    _check_classes(classes)
    return map_size


def check_boxes(classes: Tensor, boxes: Tensor) -> None:
    """Refuse boxes that are not one a map."""
    if boxes.shape != (len(classes), 4) or not boxes.is_floating_point():
        raise BoxError(f"boxes: expected floating [{len(classes)}, 4], got {boxes.dtype} {list(boxes.shape)}")


def pool_topk(maps: Maps, wy: Tensor, wx: Tensor, num_classes: int) -> Tensor:
    """Return logits ``[B, gh * gw, C + 1]`` of maps and weights ``[B, gh, H]`` and ``[B, gw, W]``; the last is nobody's."""
    classes, scores = maps["classes"], maps["scores"]
    if scores.is_floating_point():
        scores = scores.float()
    else:
        top, step = maps["score_range"].float()[:, :, None, None, None].unbind(1)
        scores = top - step * scores.cumsum(dim=1, dtype=torch.int32).float()
    count, cells = len(classes), wy.shape[1] * wx.shape[1]
    weights = (wy[:, :, None, :, None] * wx[:, None, :, None, :]).float().reshape(count, cells, -1)
    logits = weights.new_zeros(count, cells, num_classes + 1)
    for rank in range(classes.shape[1]):  # a rank at a time: values of all of them would take K times the memory
        chosen = classes[:, rank].reshape(count, 1, -1).long().clamp(max=num_classes)
        values = weights * scores[:, rank].reshape(count, 1, -1)
        logits.scatter_add_(2, chosen.expand(-1, cells, -1), values)
    return logits


def pool_spectral(maps: Maps, wy: Tensor, wx: Tensor, num_classes: int) -> Tensor:
    """Return logits as `pool_topk` does."""
    down = wy @ _cosines(wy.shape[2], maps["patterns"].shape[2], wy.device)
    across = wx @ _cosines(wx.shape[2], maps["patterns"].shape[3], wx.device)
    count, cells = len(wy), wy.shape[1] * wx.shape[1]
    pooled = torch.einsum("bruv,bgu,bhv->bghr", maps["patterns"].double() / ONE, down, across).reshape(count, cells, -1)
    top, step, weight_step = maps["scales"].double()[:, :, None].unbind(1)
    means = (top - step * maps["means"].double())[:, None]
    values = means * (wy.sum(2)[:, :, None] * wx.sum(2)[:, None]).reshape(count, cells, 1)
    varying = (pooled @ maps["weights"].double().transpose(1, 2)) * weight_step[:, :, None]
    still = values.shape[2] - varying.shape[2]
    values = values + torch.nn.functional.pad(varying, (0, still))
    chosen = maps["classes"].long().clamp(max=num_classes)[:, None].expand(-1, cells, -1)
    logits = torch.nn.functional.pad(_rest(maps, num_classes), (0, 1))[:, None].repeat(1, cells, 1)
    return logits.scatter_(2, chosen, values.float())


def check_values(classes: Tensor, boxes: Tensor, num_classes: int) -> None:
    """Refuse boxes without an area inside the image, and classes that the store does not have."""
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


def _rest(maps: Maps, num_classes: int) -> Tensor:
    """Return the logits that classes have which are not named, float32 ``[B, C]``, those of named ones among them."""
    rest, tail = maps["rest"].float(), maps["tail"]
    bits = _TAIL_BITS[rest.shape[1]]
    if not bits:
        return rest.new_zeros(len(rest), num_classes)
    shifts = torch.arange(0, 8, bits, device=tail.device)
    codes = (tail.long()[:, :, None] >> shifts) & ((1 << bits) - 1)
    return rest.gather(1, codes.flatten(1)[:, :num_classes])


def _check_classes(classes: Tensor) -> None:
    if classes.dtype not in (torch.uint16, torch.int32, torch.int64):
        raise MapsError(f"maps: classes: expected uint16, int32 or int64, got {classes.dtype}")


def _cosines(size: int, count: int, device: torch.device) -> Tensor:
    at = (torch.arange(size, device=device, dtype=torch.float64)[:, None] + 0.5) / size
    return torch.cos(math.pi * at * torch.arange(count, device=device))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
