"""JPEG files decoded and resized where the annotator is: nvJPEG on a CUDA device, through torchvision."""

from __future__ import annotations

import contextlib
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
from labelstore.pipelines.annotators.spec import Preprocessing
from labelstore.pipelines.images import QUIET, image_pixels, is_plain_jpeg, resized

Decoded = list[Tensor] | str
_MODES = {
    "nearest": InterpolationMode.NEAREST_EXACT,  # Pillow's
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def decode_on_device(files: Sequence[bytes], annotators: Ensemble) -> list[Decoded]:
    """Return for each JPEG file uint8 ``[S, S, 3]`` for each of the annotators' inputs, or why it cannot be decoded.

    Pixels differ a little from Pillow's. Files that are not plain (CMYK, cut short, very large), and what the device's decoder
    refuses, Pillow decodes, or says why not.
    """
    found: dict[int, Tensor] = {}
    plain = [at for at, data in enumerate(files) if is_plain_jpeg(data)]
    device: Any = annotators.device
    tensors = [torch.frombuffer(bytearray(files[at]), dtype=torch.uint8) for at in plain]
    try:
        found.update(zip(plain, _decode(tensors, device), strict=True))
    except RuntimeError:  # one of them
        for at, tensor in zip(plain, tensors, strict=True):
            with contextlib.suppress(RuntimeError):
                found[at] = _decode([tensor], device)[0]
    return [
        [_resized(found[at], how) for how in annotators.inputs] if at in found else _by_pillow(data, annotators)
        for at, data in enumerate(files)
    ]


def _decode(files: list[Tensor], device: Any) -> list[Tensor]:
    with QUIET:  # torchvision announces another package for this
        return list(decode_jpeg(files, mode=ImageReadMode.RGB, device=device)) if files else []


def _resized(image: Tensor, how: Preprocessing) -> Tensor:
    mode = _MODES.get(how.interpolation)
    if mode is None:  # lanczos, which no device has
        return torch.from_numpy(resized(image.permute(1, 2, 0).cpu().numpy(), how)).to(image.device)
    square: Tensor = resize(image, [how.input_size] * 2, mode, antialias=True)
    return square.permute(1, 2, 0)


def _by_pillow(data: bytes, annotators: Ensemble) -> Decoded:
    try:
        pixels = image_pixels(data, annotators.inputs)
    except ImageDecodeError as error:
        return str(error)
    return [torch.from_numpy(np.array(part)).to(annotators.device) for part in pixels]
