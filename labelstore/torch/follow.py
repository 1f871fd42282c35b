"""Any transform of one image, with the box of the crop that it makes.

The transform's containers (Compose, RandomApply, ...) are kept, with their randomness; the steps in them are wrapped so that
each hands on an image and its window. How a step is followed depends on what it is:

- steps that leave pixels in place are run on the image alone;
- steps of which it is known what they do (`rules`) are run, and the window is worked out beside them;
- the other crops, resizes and pads of torchvision.transforms.v2 are given the image and a `CropBox`;
- everything else (torchvision's older transforms, timm's, functions) is given a PIL image that notes what is done with it.

What none of these can follow is refused when the transform is wrapped, or at the latest with the first image that meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torchvision.transforms import v2

from labelstore.errors import TransformError
from labelstore.torch import steps
from labelstore.torch.augment import geometric_ops, is_augmentation
from labelstore.torch.pil import TrackedImage, track
from labelstore.torch.region import CropBox, Window
from labelstore.torch.rules import RULES


def follow(transform: Callable[[Any], Any], *, trusted: Sequence[Any] = ()) -> FollowedTransform:
    """Wrap a transform so that it also returns the box of the crop that it makes.

    Parameters
    ----------
    transform
        What is given to a dataset: a ``torchvision.transforms.v2`` pipeline, one of ``torchvision.transforms``, timm's
        ``create_transform(...)``, or a mixture; of one image, which is a PIL image or a tensor ``[..., H, W]``. Its results
        and its use of random numbers stay what they are.
    trusted
        Steps of your own that cannot be seen through, as types or as the steps themselves. By naming them you say that they
        leave every pixel where it is (noise, tones, conversions) or, for v2 transforms, that they hand the image and the
        `CropBox` beside it to the same functionals of ``torchvision.transforms.v2``.

    Returns
    -------
    A callable, image -> (what ``transform`` makes of it, box): float64 ``[4]``, ``(x1, y1, x2, y2)``, fractions of the given
    image's width and height; ``x1 > x2`` if mirrored, beyond [0, 1] where there is padding. It can be pickled if
    ``transform`` can.

    Raises
    ------
    TransformError
        A step turns or bends the image, makes several of it, or moves pixels without telling: the message names it, says
        where it is and what to do.
    """
    if isinstance(transform, FollowedTransform):
        return transform
    return FollowedTransform(transform, _Builder(tuple(trusted)).build(transform, "transform"))


class Sample(NamedTuple):
    """An image (PIL, tensor, or what the last steps make of it) and the part of the original image that it shows."""

    image: Any
    window: Window


class FollowedTransform:
    """A transform that also returns the box of the crop that it makes; `follow` makes it.

    Not more and not less thread-safe than the transform that it wraps; it keeps nothing from one image to the next.
    """

    def __init__(self, transform: Callable[[Any], Any], run: Callable[[Sample], Sample]) -> None:
        self.transform = transform
        self._run = run

    def __call__(self, image: Any) -> tuple[Any, torch.Tensor]:
        """Return the transformed image and its box, a plain float64 tensor ``[4]``."""
        size = _size(image)
        if size is None:
            raise TransformError(f"expected a PIL image or a tensor [..., H, W], got {steps.in_words(type(image))}")
        image, window = self._run(Sample(image, Window.whole(*size)))
        return image, window.fractions()

    def __repr__(self) -> str:
        return f"follow({self.transform!r})"


@dataclass(frozen=True)
class _Still:
    """A step that leaves every pixel where it is."""

    step: Callable[[Any], Any]

    def __call__(self, sample: Sample) -> Sample:
        return Sample(self.step(sample.image), sample.window)


@dataclass(frozen=True)
class _Told:
    """A v2 transform that does to the box beside the image what it does to the image."""

    step: Callable[[Any, CropBox], tuple[Any, CropBox]]

    def __call__(self, sample: Sample) -> Sample:
        image, box = self.step(sample.image, CropBox(sample.window))
        return Sample(image, box.window())


@dataclass(frozen=True)
class _Computed:
    """A step that loses the box on its way, and of which it is known what it does."""

    step: Any
    rule: Callable[[Any, Any, Window], tuple[Any, Window]]

    def __call__(self, sample: Sample) -> Sample:
        return Sample(*self.rule(self.step, *sample))


@dataclass(frozen=True)
class _Watched:
    """A step that is run on a PIL image that notes what is done with it."""

    step: Callable[[Any], Any]
    where: str

    def __call__(self, sample: Sample) -> Sample:
        if not isinstance(sample.image, Image.Image):
            raise _unseen(self.step, self.where, f"is given a {steps.in_words(type(sample.image))}")
        image = self.step(track(sample.image, sample.window))
        if not isinstance(image, TrackedImage):
            raise _unseen(self.step, self.where, f"makes a {steps.in_words(type(image))} of a PIL image in a way of its own")
        return Sample(image.plain(), image.window)


@dataclass(frozen=True)
class _Trusted:
    """A step of which the caller has said that the box is right after it; what can be checked of that is checked."""

    run: _Still | _Told
    where: str

    def __call__(self, sample: Sample) -> Sample:
        after = self.run(sample)
        size = _size(after.image)
        if size is not None and size != (after.window.height, after.window.width):
            known = f"{after.window.height} x {after.window.width}"
            raise TransformError(
                f"{self.where}: {steps.in_words(self.run.step)} is trusted to leave pixels in place, or to tell the CropBox "
                f"what it does, but it made {size[0]} x {size[1]} pixels (height x width) where the box knows of {known}"
            )
        return after


class _Builder:
    """Wraps the steps of one transform, and keeps account of where the image is a tensor for certain."""

    def __init__(self, trusted: tuple[Any, ...]) -> None:
        self.trusted = trusted
        self.trusted_types = tuple(one for one in trusted if isinstance(one, type))
        self.tensors = False

    def build(self, step: Any, where: str) -> Callable[[Sample], Sample]:
        trusted = isinstance(step, self.trusted_types) or any(step is one for one in self.trusted)
        held = None if trusted else steps.children(step)
        if held is None:
            return self.wrap_trusted(step, where) if trusted else self.wrap(step, where)
        before, wrapped = self.tensors, []
        for index, inner in enumerate(held):
            wrapped.append(self.build(inner, f"{where}[{index}]"))
            if not steps.runs_in_order(step):  # what one branch does is not certain for the next, nor for what follows
                self.tensors = before
        run: Callable[[Sample], Sample] = steps.rebuild(step, wrapped)
        return run

    def wrap_trusted(self, step: Any, where: str) -> Callable[[Sample], Sample]:
        tells = isinstance(step, v2.Transform) and not isinstance(step, v2.Lambda)  # a Lambda would be run on the box too
        return _Trusted(_Told(step) if tells else _Still(step), where)

    def wrap(self, step: Any, where: str) -> Callable[[Sample], Sample]:
        name = steps.known_as(step)
        _refuse(step, name, where)
        self.tensors = (self.tensors or name in steps.TENSORS) and name not in steps.IMAGES
        if name in steps.STILL or is_augmentation(step):
            return _Still(step)
        if name in RULES:
            return _Computed(step, RULES[name])
        if name in steps.TOLD:
            return _Told(step)
        if self.tensors:
            raise _unseen(step, where, "is given a tensor")
        return _Watched(step, where)


def _refuse(step: Any, name: str | None, where: str) -> None:
    if not callable(step):
        raise TransformError(
            f"{where}: expected one callable transform (several: torchvision.transforms.v2.Compose), got {step!r}"
        )
    why = steps.REFUSED.get(str(name))
    if why is not None:
        raise TransformError(f"{where}: {steps.in_words(step)}: the crop's box cannot be followed through it: {why}")
    ops = geometric_ops(step)
    if ops:
        raise TransformError(
            f"{where}: {steps.in_words(step)} draws from {', '.join(ops)}, which move the image and tell nobody where to. "
            "Take them out of it: follow(without_geometry(transform))"
        )


def _unseen(step: object, where: str, what: str) -> TransformError:
    return TransformError(
        f"{where}: {steps.in_words(step)} {what}: the crop's box cannot be followed through it. If it leaves every pixel "
        "where it is, say so: follow(transform, trusted=[its type]). If it moves pixels, take a step of "
        "torchvision.transforms.v2 in its place, or put it before the image becomes a tensor. If it holds a pipeline, "
        "follow that"
    )


def _size(image: Any) -> tuple[int, int] | None:
    if isinstance(image, Image.Image):
        return image.height, image.width
    if isinstance(image, torch.Tensor) and image.ndim >= 2:
        return image.shape[-2], image.shape[-1]
    return None
