"""What is known of the steps of torchvision's and timm's transforms: which hold others, which move pixels, which are refused.

Steps are recognised by the module and the name of their class (``v1.ToTensor``, ``v2.RandomCrop``, ``timm.ToNumpy``), so timm
is never imported. A subclass counts as what it derives from, unless it brings code of its own for the image: then nothing is
known of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision import transforms as v1
from torchvision.transforms import v2

_FAMILIES = {"torchvision.transforms.v2": "v2", "torchvision.transforms": "v1", "timm.data": "timm", "torch.nn": "nn"}
_TOUCH_THE_IMAGE = ("__call__", "forward", "transform", "_transform", "_call_kernel", "_apply_image_or_video_transform")


def _named(family: str, names: str) -> frozenset[str]:
    return frozenset(f"{family}.{name}" for name in names.split())


_EITHER = (
    "ColorJitter ConvertImageDtype GaussianBlur Grayscale LinearTransformation Normalize PILToTensor RandomAdjustSharpness "
    "RandomAutocontrast RandomEqualize RandomErasing RandomGrayscale RandomInvert RandomPosterize RandomSolarize ToPILImage "
    "ToTensor"
)
_V2 = (
    "ClampBoundingBoxes ClampKeyPoints ConvertBoundingBoxFormat GaussianNoise Identity JPEG RGB RandomChannelPermutation "
    "RandomPhotometricDistort SetClampingMode ToDtype ToImage ToPureTensor UniformTemporalSubsample"
)
_TIMM = "MaybePILToTensor MaybeToTensor Patchify RandomErasing ToNumpy ToTensor"

STILL = _named("v1", _EITHER) | _named("v2", _EITHER) | _named("v2", _V2) | _named("timm", _TIMM) | {"nn.Identity"}
"""Steps that leave every pixel where it is, or make a tensor of the image as it is."""

TOLD = _named(
    "v2",
    "CenterCrop Pad RandomCrop RandomHorizontalFlip RandomResize RandomResizedCrop RandomShortestSize RandomVerticalFlip "
    "RandomZoomOut Resize ScaleJitter",
)
"""Steps that move pixels and tell the tv_tensors beside the image what they do."""

TENSORS = _named("v1", "PILToTensor ToTensor") | _named("v2", "PILToTensor ToImage ToTensor") | _named("timm", _TIMM)
"""Steps after which the image is a PIL image no more."""

IMAGES = frozenset(("v1.ToPILImage", "v2.ToPILImage"))
"""Steps after which it is one again."""

_BENDS = dict.fromkeys(
    ("ElasticTransform", "RandomAffine", "RandomPerspective", "RandomRotation"),
    "what it shows is no upright box of the original image",
)
_MANY = dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several crops of one image")
_BATCH = dict.fromkeys(("CutMix", "MixUp"), "it mixes the images of a batch: apply it to batches, with their soft labels")
_BOXES = dict.fromkeys(
    ("RandomIoUCrop", "SanitizeBoundingBoxes", "SanitizeKeyPoints"), "it needs bounding boxes or keypoints beside the image"
)
_AUTO = {
    name: f"it moves the image and tells nobody: take torchvision.transforms.v2.{name}, and then without_geometry(transform)"
    for name in ("AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide")
}
REFUSED = {f"v1.{name}": why for name, why in (_BENDS | _MANY).items()}
REFUSED |= {f"v1.{name}": why for name, why in _AUTO.items()}
REFUSED |= {f"v2.{name}": why for name, why in (_BENDS | _MANY | _BATCH | _BOXES).items()}
"""Steps that the box cannot be followed through, and why."""

_CONTAINERS: dict[str, Callable[..., Any]] = {
    f"{family}.{name}": getattr(module, name)
    for family, module in (("v1", v1), ("v2", v2))
    for name in ("Compose", "RandomApply", "RandomChoice", "RandomOrder")
}
_CONTAINERS["nn.Sequential"] = v1.Compose


def known_as(step: object) -> str | None:
    """Return what ``step`` is known as, such as ``v2.RandomCrop``; None for what is not torchvision's, timm's or torch's."""
    for base in type(step).__mro__:
        family = next((short for module, short in _FAMILIES.items() if base.__module__.startswith(module + ".")), None)
        if family is not None:
            own = any(getattr(base, name, None) is not getattr(type(step), name, None) for name in _TOUCH_THE_IMAGE)
            return None if own else f"{family}.{base.__name__}"
    return None


def runs_in_order(container: object) -> bool:
    """Whether all steps of a container are run, one after the other, always."""
    return str(known_as(container)).endswith((".Compose", ".Sequential"))


def children(step: Any) -> list[Any] | None:
    """Return the steps that ``step`` holds; None if it is no container."""
    name = known_as(step)
    if name not in _CONTAINERS:
        return None
    return list(step) if name == "nn.Sequential" else list(step.transforms)


def rebuild(step: Any, steps: Sequence[Any]) -> Any:
    """Return a container like ``step``, with its probabilities, that holds ``steps``."""
    kind = _CONTAINERS[str(known_as(step))]
    return kind(steps, p=step.p) if hasattr(step, "p") else kind(steps)


def in_words(step: object) -> str:
    """Return a step's name for messages: ``torchvision.transforms.v2.RandomCrop``, ``train.add_noise``."""
    named = step if hasattr(step, "__qualname__") else type(step)
    module, name = str(named.__module__), str(named.__qualname__)
    public = next(
        (package for package in ("torchvision.transforms.v2", "torchvision.transforms") if module.startswith(package)), module
    )
    return f"{public}.{name}"
