"""RandAugment and its kin: drawn from lists of ops, of which some move the image and tell nobody."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from labelstore.errors import TransformError
from labelstore.torch.steps import children, in_words, known_as, rebuild

_STILL_OPS = {
    "Identity",
    "AutoContrast",
    "Brightness",
    "Color",
    "Contrast",
    "Equalize",
    "Invert",
    "Posterize",
    "Sharpness",
    "Solarize",
    # timm only
    "BrightnessIncreasing",
    "ColorIncreasing",
    "ContrastIncreasing",
    "Desaturate",
    "GaussianBlur",
    "GaussianBlurRand",
    "PosterizeIncreasing",
    "PosterizeOriginal",
    "SharpnessIncreasing",
    "SolarizeAdd",
    "SolarizeIncreasing",
}


def without_geometry(transform: Any) -> Any:
    """Take the ops that move pixels out of the automatic augmentations of a transform.

    Parameters
    ----------
    transform
        One step or a whole pipeline, which is left as it is. In the copy, ``RandAugment``, ``TrivialAugmentWide``,
        ``AutoAugment`` and ``AugMix`` of torchvision.transforms.v2, and ``RandAugment``, ``AutoAugment`` and
        ``AugMixAugment`` of timm draw from what is left: colours, contrast, sharpness and the like. Policies keep their number,
        so an AutoAugment sub-policy may do less, or nothing.

    Raises
    ------
    TransformError
        Nothing would be left.
    """
    held = children(transform)
    if held is not None:
        return rebuild(transform, [without_geometry(step) for step in held])
    kind = _KINDS.get(str(known_as(transform)))
    if kind is None or not geometric_ops(transform):
        return transform
    step = copy.copy(transform)
    kind.strip(step)
    if not any(kind.ops(step)):
        raise TransformError(f"{in_words(step)}: every op of it moves the image: without them nothing is left; leave it out")
    return step


def is_augmentation(step: object) -> bool:
    """Whether ``step`` is one of those that draw from lists of ops that are known here."""
    return known_as(step) in _KINDS


def geometric_ops(step: object) -> list[str]:
    """Return the names of the ops of such a step that are not known to leave every pixel where it is."""
    kind = _KINDS.get(str(known_as(step)))
    return sorted(set(kind.ops(step)) - _STILL_OPS) if kind else []


class _StillSpace(dict[str, Any]):
    """The ops of a v2 class that leave pixels in place; pickled by the class, since the values are lambdas."""

    def __init__(self, owner: type, attribute: str) -> None:
        super().__init__({name: op for name, op in getattr(owner, attribute).items() if name in _STILL_OPS})
        self._of = (owner, attribute)

    def __reduce__(self) -> tuple[type, tuple[type, str]]:
        return _StillSpace, self._of


def _strip_space(step: Any) -> None:
    for attribute in ("_AUGMENTATION_SPACE", "_PARTIAL_AUGMENTATION_SPACE"):
        if hasattr(step, attribute):
            setattr(step, attribute, _StillSpace(type(step), attribute))


def _strip_policies(step: Any) -> None:
    step._policies = [tuple(op for op in policy if op[0] in _STILL_OPS) for policy in step._policies]


def _strip_ops(step: Any) -> None:
    kept = [index for index, op in enumerate(step.ops) if op.name in _STILL_OPS]
    step.ops = [step.ops[index] for index in kept]
    weights = getattr(step, "choice_weights", None)
    if weights is not None and kept:
        step.choice_weights = weights[kept] / weights[kept].sum()


def _strip_policy(step: Any) -> None:
    step.policy = [[op for op in policy if op.name in _STILL_OPS] for policy in step.policy]


def _mix_space(step: Any) -> Iterable[str]:
    space: Iterable[str] = step._AUGMENTATION_SPACE if step.all_ops else step._PARTIAL_AUGMENTATION_SPACE
    return space


class _Kind(NamedTuple):
    """How one class keeps its ops: where to read their names, and how to take the moving ones out of a copy."""

    ops: Callable[[Any], Iterable[str]]
    strip: Callable[[Any], None]


_KINDS = {
    "v2.RandAugment": _Kind(lambda step: step._AUGMENTATION_SPACE, _strip_space),
    "v2.TrivialAugmentWide": _Kind(lambda step: step._AUGMENTATION_SPACE, _strip_space),
    "v2.AutoAugment": _Kind(lambda step: [name for policy in step._policies for name, *_ in policy], _strip_policies),
    "v2.AugMix": _Kind(_mix_space, _strip_space),
    "timm.RandAugment": _Kind(lambda step: [op.name for op in step.ops], _strip_ops),
    "timm.AutoAugment": _Kind(lambda step: [op.name for policy in step.policy for op in policy], _strip_policy),
    "timm.AugMixAugment": _Kind(lambda step: [op.name for op in step.ops], _strip_ops),
}
