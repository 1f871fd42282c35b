"""timm's Mixup and CutMix for soft labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labelstore.errors import OptionError


class SoftMixup:
    """Mixes images as timm's ``Mixup`` does, and their soft labels in the same shares.

    ``Mixup`` itself takes class numbers: rows of a soft label would each count as a class number. Here it is asked to mix the
    places of the batch, so that its modes, its switching and its use of random numbers stay what they are. (torchvision's
    ``v2.MixUp`` and ``v2.CutMix`` take soft labels as they are.)

    Parameters
    ----------
    mixup
        A ``timm.data.Mixup``; its ``label_smoothing`` is applied, its ``num_classes`` is not looked at.

    Raises
    ------
    OptionError
        It is no such object; or, when called, labels are not soft.
    """

    def __init__(self, mixup: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        if not (hasattr(mixup, "num_classes") and hasattr(mixup, "label_smoothing") and callable(mixup)):
            raise OptionError(f"mixup: expected a timm.data.Mixup, got {type(mixup).__name__}")
        self.mixup: Any = mixup

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Parameters
        ----------
        images
            float ``[B, C, H, W]``, changed in place; B is even.
        labels
            float ``[B, D]``.

        Returns
        -------
        The images, and float ``[B, D]``.
        """
        if labels.ndim != 2 or len(labels) != len(images) or not labels.is_floating_point():
            raise OptionError(
                f"labels: expected soft labels, float [{len(images)}, D], got {labels.dtype} {list(labels.shape)}; "
                "class numbers go to timm's Mixup itself"
            )
        places = copy.copy(self.mixup)
        places.num_classes, places.label_smoothing, places.multi_label = len(images), 0.0, False
        images, shares = places(images, torch.arange(len(images), device=labels.device))
        kept = shares.diagonal().to(labels)[:, None]
        smoothing = float(self.mixup.label_smoothing)
        mixed = labels * kept + labels.flip(0) * (1 - kept)
        return images, mixed * (1 - smoothing) + smoothing / labels.shape[1]
