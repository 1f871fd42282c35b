"""JPEG files decoded and resized where the annotator is: nvJPEG on a CUDA device, through torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators.ensemble import Ensemble
from labelstore.pipelines.images import image_pixels

Decoded = list[Tensor] | str


def decode_on_device(files: Sequence[bytes], annotators: Ensemble) -> list[Decoded]:
    """Return for each JPEG file uint8 ``[S, S, 3]`` for each of the annotators' inputs, or why it cannot be decoded.

    Pixels differ a little from Pillow's. What the device's decoder refuses (CMYK, damaged files) Pillow decodes, or says why
    not.
    """
    device: Any = annotators.device
    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    try:
        images: list[Tensor | None] = list(decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device))
    except RuntimeError:
        images = [_alone(tensor, device) for tensor in tensors]
    return [
        _by_pillow(data, annotators) if image is None else _resized(image, annotators)
        for data, image in zip(files, images, strict=True)
    ]


def _alone(data: Tensor, device: Any) -> Tensor | None:
    try:
        image: Tensor = decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return None
    return image


def _resized(image: Tensor, annotators: Ensemble) -> list[Tensor]:
    return [
        resize(image, [how.input_size] * 2, InterpolationMode(how.interpolation), antialias=True).permute(1, 2, 0)
        for how in annotators.inputs
    ]


def _by_pillow(data: bytes, annotators: Ensemble) -> Decoded:
    try:
        pixels = image_pixels(data, annotators.inputs, "ignore")
    except ImageDecodeError as error:
        return str(error)
    return [torch.from_numpy(np.array(part)).to(annotators.device) for part in pixels]
