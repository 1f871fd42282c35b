"""Which part of the original image the current image shows: plain arithmetic, and a tv_tensor that does it in v2 pipelines.

Everything is an axis-aligned window with straight sides: crops, resizes, pads and flips keep it one, exactly; rotations,
shears, perspective and elastic warps do not, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import register_kernel

from labelstore.errors import BoxError, TransformError

if TYPE_CHECKING:  # torchvision has no types: seen from here a TVTensor is a tensor

    class TVTensor(torch.Tensor):
        """A tensor that torchvision.transforms.v2 recognises."""

else:
    from torchvision.tv_tensors import TVTensor


class Window(NamedTuple):
    """The part of the original image that a canvas of ``height`` x ``width`` pixels covers, edge to edge.

    ``x1 .. y2`` are fractions of the ORIGINAL image's width and height: x to the right, y down; ``x1 > x2`` (or ``y1 > y2``)
    once the canvas is mirrored. They leave [0, 1] where the canvas shows padding.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """The window of an untouched image."""
        return cls(0.0, 0.0, 1.0, 1.0, height, width)

    def crop(self, top: float, left: float, height: float, width: float) -> Window:
        """Cut out these pixels of the canvas; what lies outside the canvas is padding."""
        x, y = self.x2 - self.x1, self.y2 - self.y1  # divided last: a crop of the whole image is left / width to the last bit
        return Window(
            self.x1 + left * x / self.width,
            self.y1 + top * y / self.height,
            self.x1 + (left + width) * x / self.width,
            self.y1 + (top + height) * y / self.height,
            int(height),
            int(width),
        )

    def resize(self, height: int, width: int) -> Window:
        """Cover the same part with another number of pixels."""
        return self._replace(height=height, width=width)

    def pad(self, left: int, top: int, right: int, bottom: int) -> Window:
        """Add pixels around the canvas (torchvision's order); negative numbers take them away."""
        return self.crop(-top, -left, self.height + top + bottom, self.width + left + right)

    def center_crop(self, height: int, width: int) -> Window:
        """Cut out, or pad to, the middle, with torchvision's rounding."""
        return self.crop(_middle(self.height, height), _middle(self.width, width), height, width)

    def mirror(self, *, x: bool = False, y: bool = False) -> Window:
        """Flip left to right (``x``), top to bottom (``y``)."""
        x1, x2 = (self.x2, self.x1) if x else (self.x1, self.x2)
        y1, y2 = (self.y2, self.y1) if y else (self.y1, self.y2)
        return self._replace(x1=x1, y1=y1, x2=x2, y2=y2)

    def fractions(self) -> torch.Tensor:
        """The box, ``(x1, y1, x2, y2)``: float64 ``[4]``."""
        return torch.tensor(self[:4], dtype=torch.float64)


def sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """torchvision's ``padding`` (a number, ``[all]``, ``[x, y]`` or all four) as left, top, right, bottom."""
    given = [padding] if isinstance(padding, int) else list(padding)
    if len(given) < 4:
        given = [given[0], given[-1]] * 2
    left, top, right, bottom = given
    return left, top, right, bottom


def resized(window: Window, size: int | Sequence[int] | None, max_size: int | None = None) -> Window:
    """``window`` after torchvision's ``resize``: whatever that makes of ``size`` and ``max_size``."""
    if isinstance(size, Sequence) and len(size) == 2:
        return window.resize(*size)
    # An image without channels has no pixels to compute: torchvision itself says which size comes out.
    probe = F.resize(torch.empty(0, window.height, window.width), size, max_size=max_size)
    return window.resize(*probe.shape[-2:])


def _middle(size: int, crop: int) -> int:
    return -((crop - size) // 2) if crop > size else round((size - crop) / 2.0)


class CropBox(TVTensor):
    """The crop's box, carried through a ``torchvision.transforms.v2`` pipeline beside its image.

    Start with ``CropBox.whole(height, width)`` of the image as the annotator saw it, hand ``(image, crop_box)`` to the
    pipeline, and take ``crop_box.fractions()`` at its end. Crops, resizes, pads and flips are followed exactly (to rounding in
    float64). `TransformError` from what turns or bends the image (rotate, affine, perspective, elastic) or makes several of
    it (five_crop, ten_crop).

    Padding, of every mode, moves the box beyond [0, 1]; pooling then uses the part inside. For ``reflect``, ``symmetric`` and
    ``edge`` padding that leaves out pixels that repeat the image's border, which is next to them inside the crop as a rule.

    Two things no tv_tensor can see, and `labelstore.torch.follow` refuses: ``RandAugment``, ``AutoAugment``,
    ``TrivialAugmentWide`` and ``AugMix`` move the image alone, and so do transforms that work on the image by hand.
    ``v2.ToPureTensor`` makes a plain tensor of it, and so does ``default_collate``: take `fractions` before.

    Parameters
    ----------
    data
        Six numbers: x1, y1, x2, y2 (fractions of the original image) and the current image's height and width in pixels.
    """

    def __new__(cls, data: object) -> CropBox:
        """Wrap six numbers, as float64 ``[6]``."""
        numbers = torch.as_tensor(data, dtype=torch.float64)
        if numbers.shape != (6,):
            raise BoxError(f"CropBox: expected 6 numbers (x1, y1, x2, y2, height, width), got shape {tuple(numbers.shape)}")
        return numbers.as_subclass(cls)

    @classmethod
    def whole(cls, height: int, width: int) -> CropBox:
        """Return the box of an untouched image of this size, in pixels."""
        return cls(Window.whole(height, width))

    def fractions(self) -> torch.Tensor:
        """Return ``(x1, y1, x2, y2)`` as a plain float64 tensor ``[4]``, as the pooling functions and the readers take it."""
        return self.as_subclass(torch.Tensor)[:4].clone()

    def window(self) -> Window:
        """Return the numbers for arithmetic."""
        x1, y1, x2, y2, height, width = self.as_subclass(torch.Tensor).tolist()
        return Window(x1, y1, x2, y2, int(height), int(width))


def _crop(box: CropBox, top: int, left: int, height: int, width: int) -> CropBox:
    return CropBox(box.window().crop(top, left, height, width))


def _resize(box: CropBox, size: int | Sequence[int] | None, max_size: int | None = None, **_: object) -> CropBox:
    return CropBox(resized(box.window(), size, max_size))


def _resized_crop(
    box: CropBox, top: int, left: int, height: int, width: int, size: int | Sequence[int], **_: object
) -> CropBox:
    return CropBox(resized(box.window().crop(top, left, height, width), size))


def _center_crop(box: CropBox, output_size: int | Sequence[int]) -> CropBox:
    height, width = [output_size] * 2 if isinstance(output_size, int) else [output_size[0], output_size[-1]]
    return CropBox(box.window().center_crop(height, width))


def _pad(box: CropBox, padding: int | Sequence[int], **_: object) -> CropBox:
    return CropBox(box.window().pad(*sides(padding)))


def _horizontal_flip(box: CropBox) -> CropBox:
    return CropBox(box.window().mirror(x=True))


def _vertical_flip(box: CropBox) -> CropBox:
    return CropBox(box.window().mirror(y=True))


def _refusal(name: str, why: str) -> Callable[..., CropBox]:
    def refuse(box: CropBox, *_: Any, **__: Any) -> CropBox:
        raise TransformError(f"{name}: the crop's box cannot be followed through it: {why}. Leave it out of the transform")

    return refuse


_KERNELS: dict[str, Callable[..., CropBox]] = {
    "crop": _crop,
    "resize": _resize,
    "resized_crop": _resized_crop,
    "center_crop": _center_crop,
    "pad": _pad,
    "horizontal_flip": _horizontal_flip,
    "vertical_flip": _vertical_flip,
}
# A type without a kernel is passed through as it is, without a word: that is why refusals are kernels too.
for _name in ("rotate", "affine", "perspective", "elastic"):
    _KERNELS[_name] = _refusal(_name, "what it shows is no upright box of the original image")
for _name in ("five_crop", "ten_crop"):
    _KERNELS[_name] = _refusal(_name, "it makes several crops of one image")
for _name, _kernel in _KERNELS.items():
    register_kernel(_name, CropBox)(_kernel)
