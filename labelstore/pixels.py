"""How image files become pixels, where libraries differ: turned upright or not, greyscale of more than 8 bits.

Annotating and training read images by the same rules, so that labels and pixels are of one picture. Pillow's own conversion
clips greyscale at 255: most images of 16 bits come out white. Pillow is loaded by callers: `import labelstore` has no need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImageDecodeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from labelstore.schema import StoreInfo

GREY16_RULES = ("fail", "scale", "clip")
"""``fail``: no picture; ``scale``: to 8 bits; ``clip``: as Pillow, and so torchvision's ImageFolder, converts."""
DEEP = "greyscale of more than 8 bits"
"""How the reason of a failed row begins."""
_AT_ONCE = 2**20
_TOPS = (255, 1023, 4095, 16383, 65535)
"""The highest values of 8, 10, 12, 14 and 16 bits: what cameras and scanners write, also into files of 16 bits."""


@dataclass(frozen=True)
class ReadRules:
    """How images become pixels, where libraries differ.

    Parameters
    ----------
    exif
        ``ignore``: the pixels as stored, as ImageFolder; ``apply``: turned upright as the EXIF orientation says.
    grey16
        What becomes of greyscale of more than 8 bits: one of `GREY16_RULES`.
    """

    exif: str = "ignore"
    grey16: str = "clip"

    @classmethod
    def of(cls, info: StoreInfo) -> ReadRules:
        """Return the rules that a store's images were read by."""
        return cls(info.exif, info.grey16)


AS_IMAGE_FOLDER = ReadRules()


def is_deep(mode: str) -> bool:
    """Whether a Pillow mode is greyscale of more than 8 bits: ``I;16`` and its byte orders, ``I`` (32 bits), ``F`` (float)."""
    return mode in ("I", "F") or mode.startswith("I;16")


def to_rgb(image: Image, grey16: str) -> Image:
    """Return an image in RGB.

    Parameters
    ----------
    image
        Of any mode, loaded.
    grey16
        One of `GREY16_RULES`, for greyscale of more than 8 bits.

    Raises
    ------
    ImageDecodeError
        It is greyscale of more than 8 bits and the rule is ``fail``; or its pixels are not finite and the rule is ``scale``.
    """
    if image.mode == "RGB":
        return image
    if is_deep(image.mode) and grey16 != "clip":
        if grey16 == "fail":
            raise ImageDecodeError(
                f"{DEEP} (Pillow's mode {image.mode}), which ImageFolder clips at 255: "
                "--grey16 scale makes 8 bits of it, --grey16 clip takes it as ImageFolder does"
            )
        return _grey(scaled(np.asarray(image)))
    return image.convert("RGB")


def scaled(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return greyscale pixels in 8 bits.

    Whole numbers from 0 to 65535 are divided by the highest value of the fewest bits (8, 10, 12, 14, 16) that hold all of the
    image's; floats from 0 to 1 are multiplied by 255; all others are spread from their own least to their own highest value.

    Raises
    ------
    ImageDecodeError
        A value is not finite.
    """
    low, high = float(pixels.min()), float(pixels.max())  # NaN, if there is one
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageDecodeError("expected finite pixels, found infinite ones or NaN")
    whole = pixels.dtype.kind in "iu"
    if low >= 0 and high <= (_TOPS[-1] if whole else 1):
        low, high = 0.0, float(next(top for top in _TOPS if top >= high)) if whole else 1.0
    factor, made = 255.0 / (high - low or 1.0), np.empty(pixels.shape, np.uint8)
    rows = max(_AT_ONCE // pixels.shape[1], 1)
    for start in range(0, len(pixels), rows):  # in parts: floats take eight times the room
        made[start : start + rows] = np.rint((pixels[start : start + rows] - low) * factor)
    return made


def _grey(pixels: NDArray[np.uint8]) -> Image:
    from PIL import Image as images

    return images.fromarray(pixels).convert("RGB")
