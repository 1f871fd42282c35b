"""The classes that an image does not name, in a few groups of one logit each."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_GROUPS, _MOST_SAY, _ROUNDS = (0.1, 0.97), 8.0, 12
"""k-means of absent classes: the shares of classes below the first groups' middles, the logit beyond which a class counts for
no more, and rounds."""
_LEAST_ODDS = 1e-30


class AbsentMass:
    """What the classes that are not named have together, crop by crop.

    Parameters
    ----------
    pooled
        float32 ``[B, few, C]``: logits of crops.
    classes
        int64 ``[B, M]``: those that are named.
    """

    def __init__(self, pooled: Tensor, classes: Tensor) -> None:
        self.count = pooled.shape[2] - classes.shape[1]
        self.pooled = pooled
        self.absent = torch.ones_like(pooled[:, 0], dtype=torch.float64).scatter_(1, classes, 0.0)
        named = classes[:, None].expand(-1, pooled.shape[1], -1)
        if self.count:
            others = pooled.scatter(2, named, -torch.inf)
            self._highest = others.amax(dim=2)
            self._odds = (others - self._highest[:, :, None]).exp()

    def of_all(self) -> Tensor:
        """The logarithm of the sum of their exponentials, float64 ``[B, few]``."""
        return self._odds.sum(dim=2).double().log() + self._highest

    def of_groups(self, members: Tensor) -> Tensor:
        """Likewise of groups, ``[B, few, G]``; members ``[B, C, G]``, 1 or 0. Of next to nothing: the least that is told."""
        return (self._odds @ members.float()).clamp(min=_LEAST_ODDS).double().log() + self._highest[:, :, None]


def group_tail(mass: AbsentMass, base: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Sort the classes that are not named into ``2 ** bits`` groups, and give each group a logit.

    Groups are those of k-means over the mean logits, likely classes counting for more. A group's logit keeps the probability
    of its classes together.

    Parameters
    ----------
    base
        ``[B, few]``: what absent classes count as, pooled; logits are above that.

    Returns
    -------
    ``[B, 2 ** bits]``, and int64 ``[B, C]`` of which those of named classes are 0. Nothing for 0 bits.
    """
    groups = 1 << bits if bits else 0
    if not groups or not mass.count:
        return base.new_zeros(len(base), groups), torch.zeros_like(mass.absent, dtype=torch.int64)
    mean = mass.pooled.mean(dim=1).double() - base.mean(dim=1, keepdim=True)
    ordered = mean.masked_fill(mass.absent == 0, torch.inf).sort(dim=1).values[:, : mass.count].contiguous()
    between = _k_means(ordered, groups)
    codes = torch.searchsorted(between, mean.contiguous()) * mass.absent.long()
    members = torch.nn.functional.one_hot(codes, groups) * mass.absent[:, :, None]
    counts = members.sum(dim=1)
    together = (mass.of_groups(members) - base[:, :, None]).mean(dim=1)
    return torch.where(counts > 0, together - counts.clamp(min=1).log(), 0.0), codes


def _k_means(ordered: Tensor, groups: int) -> Tensor:
    """Return the values between groups, ``[B, groups - 1]``, of ascending values ``[B, n]``.

    Groups of numbers are runs of them in order: a round takes sums between places, not distances of all to all.
    """
    shares = torch.linspace(*_FIRST_GROUPS, groups, device=ordered.device) * (ordered.shape[1] - 1)
    middles = ordered[:, shares.long()]
    say = (ordered.clamp(max=_MOST_SAY) / 2).exp()
    sums = torch.nn.functional.pad(torch.stack([say, say * ordered]).cumsum(dim=2), (1, 0))
    for _ in range(_ROUNDS):
        ends = torch.searchsorted(ordered, _halfway(middles), right=True)
        ends = torch.nn.functional.pad(torch.nn.functional.pad(ends, (1, 0)), (0, 1), value=ordered.shape[1])
        total, weighted = sums.gather(2, ends.expand(2, -1, -1)).diff(dim=2)
        middles = torch.where(total > 0, weighted / total.clamp(min=1e-300), middles)
    return _halfway(middles)


def _halfway(middles: Tensor) -> Tensor:
    return ((middles[:, 1:] + middles[:, :-1]) / 2).contiguous()


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return numbers of so many bits each as bytes ``[B, ceil(C * bits / 8)]``, the first in the lowest bits."""
    if not bits:
        return codes[:, :0].to(torch.uint8)
    places = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % places)).reshape(len(codes), -1, places)
    shifts = torch.arange(0, 8, bits, device=codes.device)
    return (padded << shifts).sum(dim=2).to(torch.uint8)
