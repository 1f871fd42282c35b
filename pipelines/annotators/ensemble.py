"""The annotators of a store together: pixels in, one map of logits out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from labelstore.errors import AnnotatorError
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
        self.inputs = tuple({(how.input_size, how.interpolation): how for how in reversed(wanted)}.values())[::-1]
        self._input_of = [self._find_input(how) for how in wanted]
        self.info = EnsembleInfo(_combined(self.members), tuple(member.info for member in members), members[0].precision)

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

    def _dense(self, number: int, pixels: Sequence[Tensor]) -> Tensor:
        member = self.members[number]
        batch = normalised(pixels[self._input_of[number]], member.info.preprocessing)
        logits = member.dense(batch)
        return (logits + member.dense(batch.flip(3)).flip(3)) / 2 if self.flip else logits

    def _find_input(self, how: Preprocessing) -> int:
        return [(have.input_size, have.interpolation) for have in self.inputs].index((how.input_size, how.interpolation))


def normalised(pixels: Tensor, how: Preprocessing) -> Tensor:
    """Return uint8 pixels ``[B, S, S, 3]`` as a network wants them, float32 ``[B, 3, S, S]``."""
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) * 255 for values in (how.mean, how.std))
    return (pixels.permute(0, 3, 1, 2).to(torch.float32) - mean) / std


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
    return Ensemble(members, spec.flip)


def _require_same_classes(first: AnnotatorInfo, other: AnnotatorInfo) -> None:
    if first.num_classes != other.num_classes:
        raise AnnotatorError(
            f"an ensemble's annotators must have the same classes: {first.name} has {first.num_classes}, "
            f"{other.name} {other.num_classes}"
        )
    for ours, theirs in ((first.class_ids, other.class_ids), (first.class_names, other.class_names)):
        if ours and theirs and ours == theirs:
            return
    if first.class_ids and other.class_ids and first.class_ids != other.class_ids:
        at = next(at for at, pair in enumerate(zip(first.class_ids, other.class_ids, strict=True)) if pair[0] != pair[1])
        raise AnnotatorError(
            f"an ensemble's annotators must have the same classes in the same order: class {at} is {first.class_ids[at]} of "
            f"{first.name} and {other.class_ids[at]} of {other.name}"
        )


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
