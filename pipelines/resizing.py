"""Whole images squashed to an annotator's square input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelstore.pipelines.annotators.spec import Preprocessing

_TORCHS = ("bilinear", "bicubic")
"""Torch resizes bytes as Pillow does, in a quarter of the time; values differ by one of 255 here and there."""
LARGE = 2**24
"""Pixels beyond which an image is not copied for torch: Pillow resizes it where it is."""


def squash(image: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 ``[S, S, 3]``: the whole of it, never a centre crop, since the map must cover the image.

    Runs in as many threads as torch has in the calling one: where images are decoded by several, that should be one.
    """
    size = (how.input_size, how.input_size)
    if how.interpolation not in _TORCHS or image.width * image.height > LARGE:
        return np.asarray(image.resize(size, Image.Resampling[how.interpolation.upper()]))
    import torch  # what shows images decodes them without it
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    found: NDArray[np.uint8] = interpolate(pixels, size, mode=how.interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    return found


def one_core() -> None:
    """Let the calling thread's torch operations use no other threads."""
    import torch

    torch.set_num_threads(1)
