"""Dense logits of real architectures with random weights, checked against the networks themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vgg import VGG
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import Annotator, AnnotatorSpec, load_annotator
from labelstore.pipelines.annotators.dense import find_route

TOLERANCE = 1e-4

LINEAR = [  # the head is linear after average pooling
    "timm:resnet10t",
    "timm:efficientnet_b0",
    "timm:tf_efficientnet_lite0",
    "timm:regnety_002",
    "timm:rexnet_100",
    "timm:mobilenetv2_050",
    "timm:densenet121",
    "timm:gcvit_xxtiny",
    "timm:twins_svt_small",
    "timm:focalnet_tiny_srf",
    "timm:pvt_v2_b0",
    "timm:coatnet_pico_rw_224",
    "timm:mobilevit_xxs",
    "torchvision:resnet18",
    "torchvision:efficientnet_b0",
    "torchvision:mobilenet_v2",
    "torchvision:mnasnet0_5",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "torchvision:densenet121",
    "torchvision:regnet_y_400mf",
    "torchvision:swin_t",
    "torchvision:googlenet",
]
MAP_FEATURES = [  # timm's maps with heads that are not linear; NHWC where named so
    "timm:convnext_atto",
    "timm:mobilenetv3_small_050",
    "timm:mobilenetv4_conv_small",
    "timm:edgenext_xx_small",
    "timm:poolformer_s12",
    "timm:mambaout_femto",  # NHWC
    "timm:gcvit_xxtiny",
    "timm:swin_s3_tiny_224",  # NHWC
]
TOKEN_FEATURES = [
    "timm:vit_tiny_patch16_224",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:vit_relpos_small_patch16_224",
    "timm:xcit_nano_12_p16_224",
    "timm:test_vit",
]
POOLED_MODULES = {  # torchvision: the module whose output is pooled next
    "torchvision:convnext_tiny": "features",
    "torchvision:mobilenet_v3_small": "features",
    "torchvision:efficientnet_b0": "features",
    "torchvision:resnet18": "layer4",
    "torchvision:densenet121": "features",
}


def loaded(model: str, size: int = 64) -> Annotator:
    """An annotator with random weights, also in the classifiers that are zero at first (those would hide any error)."""
    annotator = load_annotator(AnnotatorSpec(model, image_size=size, random_weights=True))
    generator = torch.Generator().manual_seed(1)
    for layer in network(annotator).modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and layer.weight.shape[0] == annotator.info.num_classes:
            layer.weight.normal_(0, 0.05, generator=generator)
    return annotator


def network(annotator: Annotator) -> Any:
    return annotator._module


def images(annotator: Annotator, seed: int = 2) -> Tensor:
    size = annotator.info.preprocessing.input_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(seed))


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == torch.float32
    assert expected.abs().max() > 0
    assert (got - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("model", LINEAR)
def test_mean_over_locations_is_the_models_output(model: str) -> None:
    annotator = loaded(model)
    batch = images(annotator)
    dense = annotator.dense(batch)
    assert dense.shape == (3, annotator.info.num_classes, *annotator.info.map_size)
    assert_close(dense.mean((2, 3)), network(annotator)(batch))
    assert annotator.linear_error <= TOLERANCE


@pytest.mark.parametrize("model", MAP_FEATURES)
def test_location_is_what_the_model_says_of_a_map_of_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is everywhere as one location gives, through the untouched model, that location's logits."""
    annotator = loaded(model)
    module, batch = network(annotator), images(annotator)
    dense, features = annotator.dense(batch), module.forward_features(batch)
    spatial = slice(1, 3) if features.shape[-1] == module.num_features else slice(2, 4)
    assert tuple(features.shape[spatial]) == annotator.info.map_size
    for row, column in ((0, 1), (1, 0)):
        one = features[:, row, column][:, None, None] if spatial.start == 1 else features[:, :, row, column, None, None]
        everywhere = one.expand_as(features).contiguous()
        with monkeypatch.context() as patch:
            patch.setattr(module, "forward_features", lambda *_, everywhere=everywhere, **__: everywhere)
            assert_close(dense[:, :, row, column], module(batch))
    assert annotator.row_error <= TOLERANCE


@pytest.mark.parametrize("model", TOKEN_FEATURES)
def test_token_is_what_the_model_says_of_tokens_like_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    annotator = loaded(model)
    module, batch = network(annotator), images(annotator)
    dense, features = annotator.dense(batch), module.forward_features(batch)
    height, width = annotator.info.map_size
    prefix = features.shape[1] - height * width
    assert height == width
    for row, column in ((0, 2), (2, 1)):
        token = features[:, prefix + row * width + column, None].expand_as(features).contiguous()
        with monkeypatch.context() as patch:
            patch.setattr(module, "forward_features", lambda *_, token=token, **__: token)
            assert_close(dense[:, :, row, column], module(batch))
    assert annotator.row_error <= TOLERANCE


@pytest.mark.parametrize(("model", "pooled"), POOLED_MODULES.items())
def test_rows_at_the_pooling_are_what_the_model_says_of_a_map_of_them(model: str, pooled: str) -> None:
    annotator = loaded(model)
    module, batch = network(annotator), images(annotator)
    dense = annotator.dense(batch)

    def all_like(row: int, column: int) -> Callable[..., Tensor]:
        return lambda _module, _args, output: output[:, :, row, column, None, None].expand_as(output).contiguous()

    for row, column in ((0, 1), (1, 0)):
        handle = module.get_submodule(pooled).register_forward_hook(all_like(row, column))
        try:
            expected = module(batch)
        finally:
            handle.remove()
        assert_close(dense[:, :, row, column], expected)
    assert annotator.row_error <= TOLERANCE


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("timm:resnet10t", 128),
        ("timm:test_vit", 64),
        ("timm:vit_tiny_patch16_224", 64),
        ("timm:swin_s3_tiny_224", 128),
        ("torchvision:swin_t", 128),
    ],
)
def test_changed_patch_changes_its_own_location_most(model: str, size: int) -> None:
    annotator = loaded(model, size)
    batch, (height, width) = images(annotator), annotator.info.map_size
    before = annotator.dense(batch)
    for row, column in ((0, width - 1), (height - 1, 0)):
        changed = batch.clone()
        y, x = row * size // height, column * size // width
        patch = changed[:, :, y : y + size // height, x : x + size // width]
        patch += 2 * torch.randn(patch.shape, generator=torch.Generator().manual_seed(3))
        change = (annotator.dense(changed) - before).abs().sum((0, 1))
        assert divmod(int(change.argmax()), width) == (row, column)


@pytest.mark.parametrize("model", ["timm:resnet10t", "timm:convnext_atto", "torchvision:swin_t", "timm:test_vit"])
def test_channels_last_and_single_images_give_the_same(model: str) -> None:
    annotator = loaded(model)
    batch = images(annotator)
    dense = annotator.dense(batch)
    assert_close(torch.cat([annotator.dense(image[None]) for image in batch]), dense)
    network(annotator).to(memory_format=torch.channels_last)
    assert_close(annotator.dense(batch.contiguous(memory_format=torch.channels_last)), dense)


@pytest.mark.parametrize("model", ["torchvision:vgg11", "torchvision:alexnet"])
def test_classifiers_of_the_whole_map_are_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kaiming_uniform_", "kaiming_normal_", "normal_"):  # seconds for 120 million weights that tell nothing
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    with pytest.raises(AnnotatorError, match=r"has no per-location head.*VGG and AlexNet.*Networks work that"):
        load_annotator(AnnotatorSpec(model, random_weights=True))


def test_timms_vgg_is_refused_though_it_has_the_interface() -> None:
    module = VGG([8, "M", 8, "M", 8, "M", 8, "M", 8, "M"], num_classes=10).eval()
    batch = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), pytest.raises(AnnotatorError, match=r"pooled vector as a row by.*VGG and AlexNet"):
        find_route(module, batch, module(batch), "small VGG")


@pytest.mark.parametrize(
    ("model", "size", "reason"),
    [
        ("timm:volo_d1_224", 64, r"pooled vector as a row by"),
        ("timm:crossvit_9_240", 240, r"got list"),
        ("timm:pit_ti_224", 224, r"one location only at 224 px"),
    ],
)
def test_other_networks_without_a_per_location_head_are_refused(model: str, size: int, reason: str) -> None:
    with pytest.raises(AnnotatorError, match=reason):
        load_annotator(AnnotatorSpec(model, size, random_weights=True))
