"""Annotators that users bring: ``package.module:factory``."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.network import Network, in_short
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.weights import build_with_weights

IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")


def build(spec: AnnotatorSpec) -> Network:
    """Call the factory that ``spec.model`` names.

    It returns a `torch.nn.Module`, or a pair ``(module, Preprocessing)``; alone: 224 px, ImageNet's mean and std,
    bilinear. The module's optional attributes ``class_names`` and ``class_ids`` are sequences of one string a class.
    The weights are the factory's affair (``spec.random_weights`` too), unless ``spec.weights`` names a file.

    Raises
    ------
    AnnotatorError
        The factory cannot be imported or called, raises, or returns something else.
    """
    factory = _import_factory(spec.model)
    try:
        made = factory()
    except Exception as error:
        raise AnnotatorError(f"the annotator factory {spec.model} raised {in_short(error)}") from error
    module, preprocessing = made if isinstance(made, tuple) and len(made) == 2 else (made, IMAGENET)
    if not isinstance(module, nn.Module) or not isinstance(preprocessing, Preprocessing):
        expected = "a torch.nn.Module or a pair (torch.nn.Module, Preprocessing)"
        raise AnnotatorError(f"the annotator factory {spec.model} returned {_kind(made)}, expected {expected}")
    kept = None
    if spec.weights is not None:
        given = module
        module, kept = build_with_weights(lambda _: given, spec.weights, spec.model)
    names = _labels(module, "class_names") or kept
    return Network(spec.model, module, preprocessing, names, _labels(module, "class_ids"))


def _import_factory(path: str) -> Callable[[], Any]:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything on import
        hint = "is it installed or on PYTHONPATH?" if isinstance(error, ImportError) else "it fails on import"
        raise AnnotatorError(f"cannot import {module_name!r} for annotator {path!r} ({hint}): {in_short(error)}") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise AnnotatorError(f"module {module_name!r} has no {attribute!r}, wanted for annotator {path!r}{hint}")
    found: Any = getattr(module, attribute)
    if not callable(found):
        raise AnnotatorError(f"annotator {path!r}: expected a factory to call, got {type(found).__name__}")
    factory: Callable[[], Any] = found
    return factory


def _labels(module: nn.Module, attribute: str) -> tuple[str, ...] | None:
    labels = getattr(module, attribute, None)
    return None if labels is None else tuple(map(str, labels))


def _kind(made: Any) -> str:
    if isinstance(made, tuple):
        return f"a tuple ({', '.join(type(part).__name__ for part in made)})"
    return type(made).__name__
