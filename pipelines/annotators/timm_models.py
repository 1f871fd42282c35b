"""Annotators from timm."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.fetching import hub_weights, is_hub_cached, is_url_cached, url_weights
from labelstore.pipelines.annotators.network import Listed, Network, refused, unknown_name
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.weights import build_with_weights

Labels = tuple[tuple[str, ...], tuple[str, ...]]


def require_timm(wanted_by: str, extra: str = "timm") -> ModuleType:
    """Import timm.

    Raises
    ------
    MissingExtraError
        timm is not installed; names the extra to install.
    """
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError(f"{wanted_by} needs timm: pip install 'labelstore[{extra}]' ({error})") from error
    module: ModuleType = timm
    return module


def has_model(name: str) -> bool:
    """Whether timm, if it is installed, knows `name` (with or without a tag)."""
    try:
        timm = require_timm(name)
    except MissingExtraError:
        return False
    return bool(timm.is_model(name))


def near_names(name: str) -> list[str]:
    """timm's names most like `name`: with tags where `name` has one."""
    timm = require_timm(name)
    known = timm.list_models(pretrained=True) if "." in name else timm.list_models()
    return difflib.get_close_matches(name, known, n=4)


def listed() -> Iterator[Listed]:
    """timm's pretrained classifiers, a name a tag, in timm's order.

    Raises
    ------
    MissingExtraError
        timm is not installed.
    """
    timm = require_timm("annotator timm:NAME")
    for name in timm.list_models(pretrained=True):
        config = timm.get_pretrained_cfg(name)
        if config.num_classes:
            size = _preprocessing(timm, config.to_dict()).input_size
            named = timm.data.infer_imagenet_subset({"num_classes": config.num_classes}) is not None
            weights_at = "cached" if _is_cached(config) else "download"
            yield Listed(f"timm:{name}", size, config.num_classes, named, weights_at)


def build(name: str, spec: AnnotatorSpec) -> Network:
    """Build timm's model `name`, with its pretrained weights unless `spec` wants random ones.

    Raises
    ------
    AnnotatorError
        The name or tag is unknown, there are no pretrained weights, they cannot be downloaded, or the model has no
        classifier or refuses the image size.
    MissingExtraError
        timm is not installed.
    """
    timm = require_timm(f"annotator {spec.model!r}")
    config = _pretrained_config(timm, name)
    pretrained = not spec.random_weights and spec.weights is None
    if pretrained and not (config and config.has_weights):
        raise AnnotatorError(f"timm:{name} has no pretrained weights in timm {timm.__version__}; give a file with --weights")
    settings = config.to_dict() if config else {}
    preprocessing = _preprocessing(timm, settings)
    own_size = preprocessing.input_size
    full_name = f"timm:{name.partition('.')[0]}.{config.tag}".rstrip(".") if pretrained else f"timm:{name}"
    fetching = _fetching(full_name, config) if pretrained else nullcontext()
    try:
        with fetching:
            built_size = settings.get("input_size", (3, own_size, own_size))[-1]
            create = partial(_create, timm, name, pretrained, spec.image_size or own_size, built_size)
            module, kept = (create(), None) if spec.weights is None else build_with_weights(create, spec.weights, full_name)
    except (AnnotatorError, MissingExtraError):
        raise
    except Exception as error:  # constructors refuse sizes with whatever their asserts raise
        raise refused(full_name, error, spec.image_size, own_size, "to load") from error
    num_classes = int(getattr(module, "num_classes", 1))
    if not num_classes:
        raise AnnotatorError(f"{full_name} has no classifier (features only), so it gives no class scores")
    if spec.weights is not None:
        return Network(full_name, module, preprocessing, kept)
    names, ids = imagenet_labels(timm, num_classes) or (None, None)
    return Network(full_name, module, preprocessing, names, ids)


def imagenet_labels(timm: ModuleType, num_classes: int) -> Labels | None:
    """Names and wnids of the ImageNet variant with this many classes, if there is one."""
    subset = timm.data.infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return None
    info = timm.data.ImageNetInfo(subset)
    indices = range(info.num_classes())
    return tuple(map(info.index_to_description, indices)), tuple(map(info.index_to_label_name, indices))


def _pretrained_config(timm: ModuleType, name: str) -> Any:
    if not timm.is_model(name):
        raise unknown_name(f"timm:{name}", f"timm {timm.__version__}", near_names(name))
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that the architecture does not have
        raise unknown_name(f"timm:{name}", f"timm {timm.__version__}", near_names(name)) from error


def _fetching(full_name: str, config: Any) -> Any:
    return hub_weights(full_name) if config.hf_hub_id else url_weights(full_name, config.url or "")


def _is_cached(config: Any) -> bool:
    if config.hf_hub_id:
        return is_hub_cached(config.hf_hub_id, config.hf_hub_filename)
    return is_url_cached(config.url or "")


def _create(
    timm: ModuleType, name: str, pretrained: bool, size: int, built_size: int, num_classes: int | None = None
) -> nn.Module:
    """Create the model, for `size` where its constructor takes one (fixed position embeddings are then resized)."""
    model: nn.Module
    classes = {} if num_classes is None else {"num_classes": num_classes}
    if size != built_size:
        try:
            model = timm.create_model(name, pretrained=pretrained, img_size=size, **classes)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
        else:
            return model
    model = timm.create_model(name, pretrained=pretrained, **classes)
    return model


def _preprocessing(timm: ModuleType, settings: dict[str, Any]) -> Preprocessing:
    data = timm.data.resolve_data_config(pretrained_cfg=settings or {"input_size": (3, 224, 224)}, use_test_size=True)
    interpolation = data["interpolation"]
    return Preprocessing(
        input_size=data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation="bicubic" if interpolation == "random" else interpolation,  # 'random' is for training only
    )
