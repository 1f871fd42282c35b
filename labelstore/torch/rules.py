"""Steps of which it is known what they do to the window: those that lose it on their way, and those that every image takes.

Padding goes through NumPy or ``Image.paste``, where no PIL image can note it. v2's random crop and flips could tell a
`CropBox`, but to make a tv_tensor and to find the kernels for it takes longer than the arithmetic, and almost every loader has
them. Each rule runs the step, or what the step does, on a PIL image or a tensor with the random numbers that the step would
have drawn, and works out the window beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import functional as F

from labelstore.torch.region import Window, resized, sides


def _pad(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    return step(image), window.pad(*sides(step.padding))


def _center_crop(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    return step(image), window.center_crop(step.size[0], step.size[-1])


def _random_crop(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    """What v1's ``RandomCrop.forward`` does: pad, pad what is still too small, draw, crop."""
    paddings = [] if step.padding is None else [step.padding]
    if step.pad_if_needed:
        padded = window.pad(*sides(step.padding or 0))
        paddings.append([max(0, step.size[1] - padded.width), max(0, step.size[0] - padded.height)])
    for padding in paddings:
        if any(sides(padding)):
            image = F.pad(image, padding, step.fill, step.padding_mode)
            window = window.pad(*sides(padding))
    drawn = step.get_params(image, step.size)
    return F.crop(image, *drawn), window.crop(*drawn)


def _random_crop_or_pad(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    top, left = drawn = step.get_params(image, step.size)
    return _with_drawn(step, drawn)(image), window.crop(top, left, *step.size)


def _random_pad(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    drawn = step.get_params(image, step.input_size)
    return _with_drawn(step, drawn)(image), window.pad(*drawn)


def _image_classification(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    return step(image), resized(window, step.resize_size).center_crop(step.crop_size[0], step.crop_size[-1])


def _random_resized_crop_v2(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    drawn = step.make_params([image])
    cut = window.crop(drawn["top"], drawn["left"], drawn["height"], drawn["width"])
    return step.transform(image, drawn), cut.resize(step.size[0], step.size[-1])


def _random_horizontal_flip_v2(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    return (image, window) if torch.rand(1) >= step.p else (step.transform(image, {}), window.mirror(x=True))


def _random_vertical_flip_v2(step: Any, image: Any, window: Window) -> tuple[Any, Window]:
    return (image, window) if torch.rand(1) >= step.p else (step.transform(image, {}), window.mirror(y=True))


def _with_drawn(step: Any, drawn: Any) -> Any:
    """Return the same step, which uses these parameters in place of new ones."""
    twin = copy.copy(step)
    twin.get_params = lambda *_, **__: drawn
    return twin


RULES: dict[str, Callable[[Any, Any, Window], tuple[Any, Window]]] = {
    "v2.RandomResizedCrop": _random_resized_crop_v2,
    "v2.RandomHorizontalFlip": _random_horizontal_flip_v2,
    "v2.RandomVerticalFlip": _random_vertical_flip_v2,
    "v1.Pad": _pad,
    "v1.CenterCrop": _center_crop,
    "v1.RandomCrop": _random_crop,
    "v1.ImageClassification": _image_classification,
    "timm.CenterCropOrPad": _center_crop,
    "timm.RandomCropOrPad": _random_crop_or_pad,
    "timm.RandomPad": _random_pad,
}
