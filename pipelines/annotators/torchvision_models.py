"""Annotators from torchvision."""

from __future__ import annotations

import difflib
import warnings
from contextlib import nullcontext
from typing import Any

import torchvision

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.fetching import url_weights
from labelstore.pipelines.annotators.network import Network, in_short, unknown_name
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.timm_models import imagenet_labels, require_timm


def has_model(name: str) -> bool:
    """Whether torchvision has an image classifier `name`."""
    return name in _classifiers()


def near_names(name: str) -> list[str]:
    """torchvision's image classifiers with names most like `name`."""
    return difflib.get_close_matches(name, _classifiers(), n=4)


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
    fetching = nullcontext() if spec.random_weights else url_weights(full_name, weights.url)
    try:
        with fetching, warnings.catch_warnings():
            # Inception and GoogLeNet announce another default for random weights to come.
            warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
            module = torchvision.models.get_model(name, weights=None if spec.random_weights else weights)
    except AnnotatorError:
        raise
    except Exception as error:
        raise AnnotatorError(f"{full_name} failed to load: {in_short(error)}") from error
    categories = tuple(weights.meta["categories"])
    return Network(full_name, module, _preprocessing(weights.transforms()), categories, _wnids(len(categories)))


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
