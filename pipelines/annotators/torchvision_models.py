"""Annotators from torchvision."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torchvision
from torch import nn

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.fetching import is_url_cached, url_weights
from labelstore.pipelines.annotators.network import Listed, Network, in_short, unknown_name
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.timm_models import imagenet_labels, require_timm
from labelstore.pipelines.annotators.weights import build_with_weights


def has_model(name: str) -> bool:
    """Whether torchvision has an image classifier `name`."""
    return name in _classifiers()


def near_names(name: str) -> list[str]:
    """torchvision's image classifiers with names most like `name`."""
    return difflib.get_close_matches(name, _classifiers(), n=4)


def listed() -> Iterator[Listed]:
    """torchvision's image classifiers, with their DEFAULT weights."""
    for name in _classifiers():
        weights: Any = torchvision.models.get_model_weights(name).DEFAULT
        size = _preprocessing(weights.transforms()).input_size
        weights_at = "cached" if is_url_cached(weights.url) else "download"
        yield Listed(f"torchvision:{name}", size, len(weights.meta["categories"]), True, weights_at)


def build(name: str, spec: AnnotatorSpec) -> Network:
    """Build torchvision's model `name`, with its DEFAULT weights unless `spec` wants random ones.

    Raises
    ------
    AnnotatorError
        The name is unknown or no image classifier's, or the weights cannot be downloaded.
    """
    full_name = f"torchvision:{name}"
    _check_name(name)
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    pretrained = not spec.random_weights and spec.weights is None
    fetching = url_weights(full_name, weights.url) if pretrained else nullcontext()
    try:
        with fetching, warnings.catch_warnings():
            # Inception and GoogLeNet announce another default for random weights to come.
            warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
            create = partial(_create, name, weights if pretrained else None, _preprocessing(weights.transforms()).input_size)
            module, kept = (create(), None) if spec.weights is None else build_with_weights(create, spec.weights, full_name)
    except (AnnotatorError, MissingExtraError):
        raise
    except Exception as error:
        raise AnnotatorError(f"{full_name} failed to load: {in_short(error)}") from error
    categories, preprocessing = tuple(weights.meta["categories"]), _preprocessing(weights.transforms())
    if spec.weights is not None:
        return Network(full_name, module, preprocessing, kept)
    return Network(full_name, module, preprocessing, categories, _wnids(len(categories)))


def _create(name: str, weights: Any, size: int, num_classes: int | None = None) -> nn.Module:
    """Create the model, for `size` where its constructor takes one and the weights do not say it."""
    module: nn.Module
    classes = {} if num_classes is None else {"num_classes": num_classes}
    if weights is None:
        try:
            module = torchvision.models.get_model(name, weights=None, image_size=size, **classes)
        except TypeError as error:
            if "image_size" not in str(error):
                raise
        else:
            return module
    module = torchvision.models.get_model(name, weights=weights, **classes)
    return module


def _classifiers() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _check_name(name: str) -> None:
    if has_model(name):
        return
    if name in torchvision.models.list_models():
        raise AnnotatorError(
            f"torchvision:{name} is not an image classifier in float32 (torchvision lists it among detection, "
            "segmentation, video, optical flow or quantized models)"
        )
    raise unknown_name(f"torchvision:{name}", f"torchvision {torchvision.__version__}", near_names(name))


def _preprocessing(transforms: Any) -> Preprocessing:
    return Preprocessing(
        input_size=transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _wnids(num_classes: int) -> tuple[str, ...] | None:
    """torchvision keeps no wnids; its 1000 categories are ImageNet-1k's, in the same order as timm's."""
    try:
        labels = imagenet_labels(require_timm("wnids"), num_classes) if num_classes == 1000 else None
    except MissingExtraError:
        return None
    return labels and labels[1]
