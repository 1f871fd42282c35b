"""A PIL image that carries its crop's box: whatever a step does with it, by its own random numbers, the box knows."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFilter

from labelstore.errors import TransformError
from labelstore.torch.region import Window

_MIRRORED = {
    Image.Transpose.FLIP_LEFT_RIGHT: (True, False),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, True),
    Image.Transpose.ROTATE_180: (True, True),
}


class TrackedImage(Image.Image):
    """A PIL image whose crops, resizes and flips are followed, whose rotations and warps raise `TransformError`.

    ``convert``, ``copy``, ``filter`` and ``point`` leave every pixel where it is and keep the box. Everything else that PIL,
    NumPy or torch make of it is a plain image or array: the box is lost, and whoever asks for it can tell. The pixels are
    shared with the image it was made of.
    """

    _box: tuple[float, float, float, float]
    _tracked: object

    @property
    def window(self) -> Window:
        """The part of the original image that this one shows.

        Raises
        ------
        TransformError
            The pixels were exchanged in place (``thumbnail``, ``ImageOps.exif_transpose(..., in_place=True)``).
        """
        if self.im is not self._tracked:
            raise TransformError("a PIL image was changed in place: the crop's box cannot be followed; work on a new image")
        return Window(*self._box, height=self.height, width=self.width)

    def plain(self) -> Image.Image:
        """Return the same image without the box."""
        image = Image.Image()
        image.__dict__.update({name: value for name, value in self.__dict__.items() if name not in ("_box", "_tracked")})
        return image

    def copy(self) -> TrackedImage:
        """As PIL's; keeps the box."""
        return track(super().copy(), self.window)

    __copy__ = copy

    def convert(self, *args: Any, **kwargs: Any) -> TrackedImage:
        """As PIL's; keeps the box."""
        return track(super().convert(*args, **kwargs), self.window)

    def filter(self, filter: ImageFilter.Filter | type[ImageFilter.Filter]) -> TrackedImage:
        """As PIL's; keeps the box."""
        return track(super().filter(filter), self.window)

    def point(self, lut: Any, mode: str | None = None) -> TrackedImage:
        """As PIL's; keeps the box."""
        return track(super().point(lut, mode), self.window)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> TrackedImage:
        """As PIL's; followed."""
        left, top, right, bottom = map(round, box or (0, 0, *self.size))  # PIL rounds so too
        return track(super().crop(box), self.window.crop(top, left, bottom - top, right - left))

    def resize(
        self,
        size: Any,
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> TrackedImage:
        """As PIL's; followed."""
        image = super().resize(size, resample, box, reducing_gap)
        left, top, right, bottom = box or (0, 0, *self.size)
        return track(image, self.window.crop(top, left, bottom - top, right - left))

    def transpose(self, method: Image.Transpose) -> TrackedImage:
        """As PIL's; flips and half turns are followed, the others refused."""
        if method not in _MIRRORED:
            raise _refusal(f"transpose({method!r})")
        x, y = _MIRRORED[method]
        return track(super().transpose(method), self.window.mirror(x=x, y=y))

    def paste(self, im: Any, box: Any = None, mask: Image.Image | None = None) -> None:
        """As PIL's; colours may be pasted, images not."""
        if isinstance(im, Image.Image):
            raise _refusal("paste")
        super().paste(im, box, mask)

    def rotate(self, *_: Any, **__: Any) -> TrackedImage:
        """Refused."""
        raise _refusal("rotate")

    def transform(self, *_: Any, **__: Any) -> TrackedImage:
        """Refused: affine, perspective, quads and meshes."""
        raise _refusal("transform")


def track(image: Image.Image, window: Window) -> TrackedImage:
    """Return ``image`` with a box: the same pixels, not copied. Of ``window`` only the fractions count."""
    image.load()
    tracked = TrackedImage()
    tracked.__dict__.update(image.__dict__)
    tracked._box = window[:4]
    tracked._tracked = image.im
    return tracked


def _refusal(method: str) -> TransformError:
    return TransformError(
        f"PIL.Image.{method}: the crop's box cannot be followed through it: what it shows is no upright box of the "
        "original image. Leave it out of the transform"
    )
