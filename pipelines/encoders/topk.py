"""Dense logits to the arrays of the `topk` encoding, in torch, on whatever device the logits are."""

from __future__ import annotations

import torch
from torch import Tensor

from labelstore.encodings.topk import LEVELS

_LOW = 0xFFFFFFFF


def encode(logits: Tensor, top_k: int, baseline: str) -> dict[str, Tensor]:
    """Return ``classes``, ``scores`` and ``score_range`` of dense logits.

    Parameters
    ----------
    logits
        float32 ``[B, C, H, W]``, finite.
    top_k
        K, at most C.
    baseline
        ``absent_mean``: at every location the mean of the dropped logits is subtracted, so that 0 means 'as the dropped
        ones'; ``zero``: the logits as they are, as in the paper.

    Returns
    -------
    ``classes`` int32 ``[B, K, H, W]`` (values of uint16), ``scores`` uint8 ``[B, K, H, W]`` (rank gaps), ``score_range``
    float32 ``[B, 2]``.
    """
    top, classes = best(logits, top_k)
    if baseline == "absent_mean":
        top = top - dropped_mean(logits, top)
    gaps, score_range = quantise(top)
    return {"classes": classes, "scores": gaps, "score_range": score_range}


def best(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the K highest logits of every location, descending, ties by lower class, in float64, and their classes.

    torch.topk leaves open which of equal logits it takes; so the class goes into the key.
    """
    bits = (logits + 0.0).view(torch.int32)  # + 0.0 turns -0.0, whose bits sort elsewhere, into 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    keys = (ordered.to(torch.int64) << 32) | (_LOW - classes)
    chosen = _LOW - (torch.topk(keys, top_k, dim=1).values & _LOW)
    return torch.gather(logits, 1, chosen).to(torch.float64), chosen.to(torch.int32)


def dropped_mean(logits: Tensor, top: Tensor) -> Tensor:
    """Return the mean of the logits that are not among the K best, float64 ``[B, 1, H, W]``; 0 where K = C."""
    dropped = logits.shape[1] - top.shape[1]
    total = logits.sum(dim=1, keepdim=True, dtype=torch.float64) - top.sum(dim=1, keepdim=True)
    return total / dropped if dropped else torch.zeros_like(total)


def quantise(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return rank gaps uint8 ``[B, K, H, W]`` and (max, step) float32 ``[B, 2]`` of descending scores; see docs/format.md.

    Half a step is the most that a score is off, and a row's best score is kept exactly (in float32).
    """
    rows = scores.flatten(1).to(torch.float64)
    high = rows.amax(dim=1).to(torch.float32)
    step = ((rows.amax(dim=1) - rows.amin(dim=1)) / LEVELS).to(torch.float32)
    step = torch.where(step < torch.finfo(torch.float32).tiny, 0.0, step)
    shape = (-1, 1, 1, 1)
    divisor = torch.where(step > 0, step, 1.0).to(torch.float64).view(shape)
    levels = torch.round((high.to(torch.float64).view(shape) - scores) / divisor)
    levels = torch.where(step.view(shape) > 0, levels, 0.0).clamp(0, LEVELS).to(torch.int32)
    gaps = torch.diff(levels, dim=1, prepend=torch.zeros_like(levels[:, :1]))
    return gaps.to(torch.uint8), torch.stack([high, step], dim=1)
