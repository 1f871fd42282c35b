"""The classes that an image does not name, in a few groups of one logit each."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_GROUPS, _MOST_SAY, _ROUNDS = (0.1, 0.97), 8.0, 12
"""k-means of absent classes: the shares of classes below the first groups' middles, the logit beyond which a class counts for
no more, and rounds."""


def group_tail(above: Tensor, classes: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Sort the classes that are not named into ``2 ** bits`` groups, and give each group a logit.

    Groups are those of k-means over the mean logits, likely classes counting for more. A group's logit keeps the probability
    of its classes together.

    Parameters
    ----------
    above
        ``[B, few, C]``: pooled logits above what absent classes count as.
    classes
        int64 ``[B, M]``: those that are named.

    Returns
    -------
    ``[B, 2 ** bits]``, and int64 ``[B, C]`` of which those of named classes are 0. Nothing for 0 bits.
    """
    count, _, num_classes = above.shape
    groups = 1 << bits if bits else 0
    if not groups or num_classes == classes.shape[1]:
        return above.new_zeros(count, groups), torch.zeros_like(above[:, 0], dtype=torch.int64)
    mean = above.mean(dim=1)
    absent = torch.ones_like(mean).scatter_(1, classes, 0.0)
    ordered = mean.masked_fill(absent == 0, torch.inf).sort(dim=1).values[:, : num_classes - classes.shape[1]]
    shares = torch.linspace(*_FIRST_GROUPS, groups, device=above.device) * (ordered.shape[1] - 1)
    middles = ordered[:, shares.long()]
    say = absent * (mean.clamp(max=_MOST_SAY) / 2).exp()
    for _ in range(_ROUNDS):
        codes = (mean[:, :, None] - middles[:, None]).abs().argmin(dim=2)
        weights = torch.nn.functional.one_hot(codes, groups) * say[:, :, None]
        total = weights.sum(dim=1)
        middles = torch.where(total > 0, (weights * mean[:, :, None]).sum(dim=1) / total.clamp(min=1e-300), middles)
    codes = (mean[:, :, None] - middles[:, None]).abs().argmin(dim=2) * absent.long()
    return torch.stack([_mass(above, (codes == group) & (absent > 0)) for group in range(groups)], dim=1), codes


def _mass(above: Tensor, members: Tensor) -> Tensor:
    """The logit at which each of some classes ``[B, C]`` has their mean probability, over crops; 0 where there are none."""
    together = torch.logsumexp(above.masked_fill(~members[:, None], -torch.inf), dim=2).mean(dim=1)
    count = members.sum(dim=1)
    found: Tensor = torch.where(count > 0, together - count.clamp(min=1).log(), 0.0)
    return found


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return numbers of so many bits each as bytes ``[B, ceil(C * bits / 8)]``, the first in the lowest bits."""
    if not bits:
        return codes[:, :0].to(torch.uint8)
    places = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % places)).reshape(len(codes), -1, places)
    shifts = torch.arange(0, 8, bits, device=codes.device)
    return (padded << shifts).sum(dim=2).to(torch.uint8)
