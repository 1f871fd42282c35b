"""Soft labels of which only the likely classes are kept, and the loss that takes them as they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labelstore.errors import MapsError, OptionError


class SparseLabels(NamedTuple):
    """Soft labels as their M most probable classes and what is left, evenly spread over all others.

    Pooled labels are of this form: classes that no location of the crop lists all have the same probability.
    Collates like any named tuple.
    """

    classes: Tensor
    """int64 ``[..., M]``."""
    probabilities: Tensor
    """float32 ``[..., M]``."""
    rest: Tensor
    """float32 ``[...]``: the probability of each class that is not listed."""

    def dense(self, num_classes: int) -> Tensor:
        """Return the labels as float32 ``[..., C]``."""
        spread = self.rest[..., None].expand(*self.rest.shape, num_classes)
        return spread.scatter(-1, self.classes, self.probabilities)


def sparsify(soft: Tensor, most: int) -> SparseLabels:
    """Keep the ``most`` most probable classes of soft labels ``[..., C]``; what the others had is spread evenly over them.

    Exact where the others have one probability anyway: where at most ``most`` classes are listed in the crop's part of the map.

    Raises
    ------
    OptionError
        ``most`` is not in 1..C.
    """
    if not 1 <= most <= soft.shape[-1]:
        raise OptionError(f"most: expected 1..{soft.shape[-1]}, the labels' classes, got {most}")
    probabilities, classes = soft.float().topk(most, dim=-1)
    left = (1 - probabilities.sum(dim=-1)).clamp(min=0)
    return SparseLabels(classes, probabilities, left / max(soft.shape[-1] - most, 1))


def soft_cross_entropy(logits: Tensor, labels: Tensor | SparseLabels, *, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of predictions to soft labels, dense or sparse; sparse ones are not made dense.

    Parameters
    ----------
    logits
        ``[..., C]``: ``[B, C]`` of images, ``[B, N, C]`` or ``[B, gh, gw, C]`` of patches.
    labels
        float ``[..., C]``, or `SparseLabels` with the same leading axes.
    reduction
        ``mean`` over all leading axes, or ``none``.

    Raises
    ------
    MapsError, OptionError
        Leading axes that differ; another reduction.
    """
    if reduction not in ("mean", "none"):
        raise OptionError(f"reduction: expected 'mean' or 'none', got {reduction!r}")
    shape = (*labels.rest.shape, logits.shape[-1]) if isinstance(labels, SparseLabels) else labels.shape
    if logits.shape != shape:
        raise MapsError(f"labels: expected {list(logits.shape)} as the logits, got {list(shape)}")
    log = torch.log_softmax(logits.float(), dim=-1)
    if isinstance(labels, SparseLabels):
        listed = log.gather(-1, labels.classes)
        losses = -((labels.probabilities - labels.rest[..., None]) * listed).sum(dim=-1) - labels.rest * log.sum(dim=-1)
    else:
        losses = -(labels * log).sum(dim=-1)
    return losses.mean() if reduction == "mean" else losses
