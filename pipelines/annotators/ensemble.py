"""The annotators of a store together: pixels in, one map of logits out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from labelstore.errors import AnnotatorError, OptionError
from labelstore.pipelines.annotators.load import Annotator, load_annotator
from labelstore.pipelines.annotators.precision import fit_precision
from labelstore.pipelines.annotators.spec import AnnotatorInfo, EnsembleInfo, EnsembleSpec, Preprocessing


class Ensemble:
    """One annotator or several, whose logits are averaged at the first one's locations.

    As thread-safe as its members; not to be pickled: send its `EnsembleSpec` to other processes.

    Attributes
    ----------
    info : EnsembleInfo
    device : torch.device
    inputs : tuple of Preprocessing
        What each image must be made into: one for every size and interpolation among the members.
    """

    def __init__(self, members: Sequence[Annotator], flip: bool = False) -> None:
        self.members = tuple(members)
        self.flip = flip
        self.device = members[0].device
        wanted = [member.info.preprocessing for member in members]
        kinds = [(how.input_size, how.interpolation) for how in wanted]
        self.inputs = tuple(wanted[kinds.index(kind)] for kind in dict.fromkeys(kinds))
        self._input_of = [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]
        infos = tuple(member.info for member in members)
        self.info = EnsembleInfo(_combined(self.members), infos, _precision(self.members))

    @torch.inference_mode()
    def logits(self, pixels: Sequence[Tensor]) -> Tensor:
        """Return logits at every location, float32 ``[B, C, h, w]``.

        Parameters
        ----------
        pixels
            For each of `inputs` uint8 ``[B, S, S, 3]`` on the device.
        """
        total = self._dense(0, pixels)
        for number in range(1, len(self.members)):
            other = self._dense(number, pixels)
            if other.shape != total.shape:
                other = interpolate(other, total.shape[2:], mode="bilinear", align_corners=False, antialias=True)
            total = total + other
        return total / len(self.members) if len(self.members) > 1 else total

    @torch.inference_mode()
    def member_logits(self, number: int, pixels: Sequence[Tensor]) -> Tensor:
        """Return one member's logits, on its own grid; else as `logits`."""
        return self._dense(number, pixels)

    def _dense(self, number: int, pixels: Sequence[Tensor]) -> Tensor:
        member = self.members[number]
        batch = normalised(pixels[self._input_of[number]], member.info.preprocessing)
        logits = member.dense(batch)
        return (logits + member.dense(batch.flip(3)).flip(3)) / 2 if self.flip else logits


def normalised(pixels: Tensor, how: Preprocessing) -> Tensor:
    """Return uint8 pixels ``[B, S, S, 3]`` as a network wants them, float32 ``[B, 3, S, S]``."""
    mean, std = (_channels(values, str(pixels.device)) for values in (how.mean, how.std))
    return pixels.permute(0, 3, 1, 2).to(torch.float32).sub_(mean).div_(std)


@lru_cache
def _channels(values: tuple[float, float, float], device: str) -> Tensor:
    """A number a channel, kept on the device: to bring one there is to wait for all that the device still has to do."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1) * 255


def load_ensemble(spec: EnsembleSpec, device: torch.device | str = "cpu") -> Ensemble:
    """Load all annotators of a store.

    Raises
    ------
    AnnotatorError, MissingExtraError, OptionError
        As `load_annotator`; or the members' classes are not the same.
    """
    precision = fit_precision(spec.precision, torch.device(device))
    members = [load_annotator(member, device, precision, compiled=spec.compiled) for member in spec.members]
    for other in members[1:]:
        _require_same_classes(members[0].info, other.info)
    ensemble = Ensemble(members, spec.flip)
    if spec.precision not in (None, ensemble.info.precision):
        raise OptionError(
            f"--precision {spec.precision}: {ensemble.info.combined.name} is a program, and runs as it was saved; "
            "leave --precision out"
        )
    return ensemble


def _require_same_classes(first: AnnotatorInfo, other: AnnotatorInfo) -> None:
    if first.num_classes != other.num_classes:
        raise AnnotatorError(
            f"an ensemble's annotators must have the same classes: {first.name} has {first.num_classes}, "
            f"{other.name} {other.num_classes}"
        )
    ids, names = (first.class_ids or (), other.class_ids or ()), (first.class_names or (), other.class_names or ())
    if all(ids):
        ours, theirs = ids
    elif sorted(names[0]) == sorted(names[1]):  # else they may only spell them differently
        ours, theirs = names
    else:
        return
    for at, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if our != their:
            raise AnnotatorError(
                f"an ensemble's annotators must have the same classes in the same order: class {at} is {our} of {first.name} "
                f"and {their} of {other.name}"
            )


def _precision(members: Sequence[Annotator]) -> str:
    """What members run in; programs among them, which are run as they are, do not count."""
    return next((member.precision for member in members if member.precision != "float32"), "float32")


def _combined(members: Sequence[Annotator]) -> AnnotatorInfo:
    first = members[0].info
    if len(members) == 1:
        return first
    digest = hashlib.sha256("\n".join(member.info.weights_sha256 for member in members).encode()).hexdigest()
    known = next((member.info for member in members if member.info.class_ids), first)
    return replace(
        first,
        name=" + ".join(member.info.name for member in members),
        weights_sha256=digest,
        class_names=first.class_names or known.class_names,
        class_ids=known.class_ids,
    )
