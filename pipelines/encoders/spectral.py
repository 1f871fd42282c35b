"""Dense logits to the records of the `spectral` encoding, in torch, on whatever device the logits are.

Everything is chosen for what will be read, averages over crops: the classes by their expected probability, the value of all
others by their probability together, the patterns by how much of the pooled logits' variation over crops they explain (the
principal components of the named classes' maps, as seen through crops).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelstore.encodings.spectral import LARGEST_WEIGHT, LEVELS, ONE, record_of, shape_of
from labelstore.pipelines.encoders.tail import AbsentMass, group_tail, pack_bits
from labelstore.pipelines.encoders.view import View, view_of
from labelstore.records import SpectralShape
from labelstore.schema import StoreInfo

_LEAST_SAY = 0.03
"""What a class counts for at least in the choice of patterns, of what the first counts for."""


@dataclass(frozen=True)
class Factors:
    """Maps taken apart, in float64, patterns alone rounded already."""

    classes: Tensor
    """int64 ``[B, M]``, by expected probability."""
    means: Tensor
    """``[B, M]``: mean pooled logits, above those of classes that are not named."""
    weights: Tensor
    """``[B, P, R]``."""
    patterns: Tensor
    """``[B, R, kh * kw]``, whole numbers, `ONE` for 1."""
    offset: Tensor
    """``[B, R]``: the mean of each pooled pattern."""
    rest: Tensor
    """``[B, 2 ** tail_bits]``: logits of classes that are not named; none without tail bits."""
    codes: Tensor
    """``[B, C]``: which of them each class has."""


def encode(logits: Tensor, info: StoreInfo) -> NDArray[np.uint8]:
    """Return records ``[B, L]`` of dense logits, float32 ``[B, C, H, W]``, finite."""
    return pack(factor(logits, shape_of(info), info.baseline), info)


def factor(logits: Tensor, shape: SpectralShape, baseline: str) -> Factors:
    """Choose classes and patterns, and how much each class has of each pattern.

    Parameters
    ----------
    logits
        float32 ``[B, C, H, W]``, finite; C at least ``shape.classes``.
    baseline
        What the classes that are not named count as: ``absent_mass``, a smooth map that gives all of them together
        the probability that they have, crop by crop as well as it can; ``absent_mean``, their mean logit; ``zero``, 0.
    """
    view = view_of(logits.shape[2], logits.shape[3], *shape.frequencies, str(logits.device))
    rows = logits.flatten(2).transpose(1, 2)  # [B, L, C]: how dense logits lie in memory, as rows of a head
    pooled = view.crops.to(rows.dtype) @ rows  # [B, few, C]
    expected = torch.logsumexp(torch.log_softmax(pooled, dim=2), dim=1)
    best, classes = torch.topk(expected, shape.classes, dim=1)
    maps = torch.gather(rows, 2, classes[:, None].expand(-1, rows.shape[1], -1)).transpose(1, 2).double()
    mass = AbsentMass(pooled, classes)
    base = _base(rows, mass, maps, view, baseline)
    maps = maps - base[:, None]
    means = maps @ view.mean
    varying = maps[:, : shape.shaped] @ view.analysis.T @ view.spread  # [B, P, F]
    say = torch.exp((best[:, : shape.shaped] - best[:, :1]).double() / 2).clamp(min=_LEAST_SAY)
    components = _components(varying * say[:, :, None], shape.patterns)
    patterns = _round_patterns(components @ view.unspread, view.offset)
    rounded = patterns[:, :, 1:] / ONE
    weights = _fit(varying, rounded @ view.spread)
    rest, codes = group_tail(mass, base @ view.crops.T, shape.tail_bits)
    return Factors(classes, means, weights, patterns, patterns[:, :, 0] / ONE + rounded @ view.offset, rest, codes)


def pack(factors: Factors, info: StoreInfo) -> NDArray[np.uint8]:
    """Round weights and means, and put all into records ``[B, L]``.

    A weight is off by at most half its step, a mean by at most half of its own (and what float32 takes).
    """
    shape, float32 = shape_of(info), torch.finfo(torch.float32)
    weight_step = _step(factors.weights.abs().flatten(1).amax(1) / LARGEST_WEIGHT) if factors.weights.numel() else None
    if weight_step is None:
        weight_step, weights = factors.means.new_zeros(len(factors.means)), factors.weights
    else:
        weights = _whole(factors.weights, weight_step[:, None, None], -LARGEST_WEIGHT, LARGEST_WEIGHT)
    means = factors.means.clone()
    means[:, : shape.shaped] -= ((weights * weight_step[:, None, None]) @ factors.offset[:, :, None])[:, :, 0]
    means = means.clamp(float32.min, float32.max)
    most = means.amax(1).float().double()
    mean_step = _step((means.amax(1) - means.amin(1)) / LEVELS)
    levels = _whole(most[:, None] - means, mean_step[:, None], 0, LEVELS)
    records = np.zeros(len(means), record_of(info))
    fields: dict[str, Any] = {
        "scales": torch.stack([most, mean_step, weight_step], 1),
        "rest": factors.rest.clamp(float32.min, float32.max),
        "classes": factors.classes,
        "means": levels,
        "weights": weights,
        "patterns": factors.patterns.reshape(*factors.patterns.shape[:2], *shape.frequencies),
        "tail": pack_bits(factors.codes, shape.tail_bits),
    }
    for name, values in fields.items():
        records[name] = values.cpu().numpy()
    return records.view(np.uint8).reshape(len(records), -1)


def _base(rows: Tensor, mass: AbsentMass, maps: Tensor, view: View, baseline: str) -> Tensor:
    """Return what counts as 0, ``[B, L]``."""
    if baseline == "zero":
        return torch.zeros_like(maps[:, 0])
    if not mass.count:
        return maps.mean(dim=1)
    share = rows.new_full((rows.shape[2], 1), 1 / mass.count)  # no sum of large logits that leaves float32
    base = (rows @ share)[:, :, 0].double() - maps.sum(dim=1) / mass.count
    if baseline == "absent_mean":
        return base
    return base + (mass.of_all() - math.log(mass.count) - base @ view.crops.T) @ view.smooth


def _components(varying: Tensor, count: int) -> Tensor:
    """Return the first principal components ``[B, count, F]`` of ``[B, P, F]``: of length 1, their largest entry positive."""
    found: Tensor = torch.linalg.eigh(varying.transpose(1, 2) @ varying).eigenvectors.flip(2)[:, :, :count].transpose(1, 2)
    if not found.numel():
        return found
    largest = torch.gather(found, 2, found.abs().argmax(dim=2, keepdim=True))
    return found * torch.where(largest < 0, -1.0, 1.0)


def _round_patterns(varying: Tensor, offset: Tensor) -> Tensor:
    """Give patterns ``[B, R, F]`` the constant that makes their mean 0, scale them and round them."""
    whole = torch.cat([-(varying @ offset)[:, :, None], varying], dim=2)
    if not whole.numel():
        return whole
    return torch.round(whole / whole.abs().amax(dim=2, keepdim=True) * ONE)


def _fit(varying: Tensor, patterns: Tensor) -> Tensor:
    """Return the weights ``[B, P, R]`` that make the most of patterns ``[B, R, F]``."""
    if not patterns.numel():
        return varying.new_zeros(varying.shape[0], varying.shape[1], patterns.shape[1])
    gram = patterns @ patterns.transpose(1, 2)
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    gram = gram + ridge * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    found: Tensor = torch.linalg.solve(gram, patterns @ varying.transpose(1, 2)).transpose(1, 2)
    return found


def _step(step: Tensor) -> Tensor:
    """Return a step as float32 keeps it; 0 where that is not a normal number."""
    kept = step.clamp(max=torch.finfo(torch.float32).max).float().double()
    return torch.where(kept < torch.finfo(torch.float32).tiny, 0.0, kept)


def _whole(values: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    levels = torch.round(values / torch.where(step > 0, step, 1.0)).clamp(low, high)
    return torch.where(step > 0, levels, 0.0)
