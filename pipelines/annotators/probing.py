"""Trying a network on random images: the way to dense logits, and what unit its output is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.calls import watched
from labelstore.pipelines.annotators.dense import ACCELERATOR_TOLERANCE, DenseRoute, find_route
from labelstore.pipelines.annotators.folding import fold_norms
from labelstore.pipelines.annotators.network import refused
from labelstore.pipelines.annotators.outputs import return_logits, scores_of
from labelstore.pipelines.annotators.scores import LastCall, Scores, find_scores, remove_last
from labelstore.records import ScoresRecord

MAX_CLASSES = 65_535  # classes are stored as uint16, and 65535 is 'no class'
PROBE_IMAGES = 2
_FOLDED_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Probing:
    """What a network is tried with: random images of a size, on a device. ``fixed``: it is a program."""

    name: str
    size: int
    own_size: int
    device: torch.device
    fixed: bool

    def batch(self) -> Tensor:
        """Return them, the same every time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(PROBE_IMAGES, 3, self.size, self.size, generator=generator).to(self.device)


@torch.inference_mode()
def probe(
    module: nn.Module, probing: Probing, asked: str | None, recorded: ScoresRecord | None
) -> tuple[Tensor, DenseRoute, Scores]:
    """Return the classifier's own output, the tested way to dense logits, made faster, and what its output is.

    Parameters
    ----------
    module
        Changed in place: what is not wanted of its output is taken off, norms are folded.
    asked, recorded
        See `AnnotatorSpec`.

    Raises
    ------
    AnnotatorError
        It fails, is no classifier, has no per-location head, or gives probabilities and nobody said so.
    """
    batch, last = probing.batch(), LastCall()
    try:
        with watched(module, last):
            output = module(batch)
    except Exception as error:  # whatever a foreign network raises on a size or input that it was not made for
        raise refused(probing.name, error, probing.size, probing.own_size, f"on a batch {list(batch.shape)}") from error
    if scores_of(output) is not output:
        return_logits(module)
        output = scores_of(output)
    _check_output(probing.name, output)
    removed = last.made(output) if _may_remove(asked, recorded) else ""
    if removed:
        remove_last(module)
        output = last.before(output)
    route = find_route(module, batch, output.float(), probing.name)
    if recorded is not None:
        scores = Scores(recorded)
    else:  # in doubt by all locations: a mean over them hides much
        in_doubt = bool((output.min() >= 0) & (output.max() <= 1))
        scores = find_scores(probing.name, asked, route.dense(batch) if in_doubt else output, removed)
    if not probing.fixed:
        tolerance = _FOLDED_TOLERANCE if probing.device.type == "cpu" else ACCELERATOR_TOLERANCE
        fold_norms(module, lambda: route.dense(batch), tolerance)
    return output, route, scores


def _may_remove(asked: str | None, recorded: ScoresRecord | None) -> bool:
    return asked != "logits" if recorded is None else recorded.removed


def _check_output(name: str, output: Any) -> None:
    if not isinstance(output, Tensor):
        kind = f"{type(output).__name__} of {len(output)}" if hasattr(output, "__len__") else type(output).__name__
        raise AnnotatorError(f"{name} is no image classifier: expected a tensor of logits [B, C], got a {kind}")
    if output.ndim not in (2, 4) or output.shape[0] != PROBE_IMAGES or not output.numel() or not output.is_floating_point():
        got = f"{output.dtype} {list(output.shape)}"
        expected = f"[{PROBE_IMAGES}, C], or of every location, [{PROBE_IMAGES}, C, h, w]"
        raise AnnotatorError(f"{name} is no image classifier: expected logits {expected}, got {got}")
    if output.shape[1] > MAX_CLASSES:
        raise AnnotatorError(f"{name} has {output.shape[1]} classes, expected at most {MAX_CLASSES} (uint16 in stores)")
