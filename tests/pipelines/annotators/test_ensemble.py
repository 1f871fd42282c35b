"""Several annotators as one, and images with their mirror images: whose grid, whose classes, what is averaged."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from toy_annotators import CELL, NAMES, Colours

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators import AnnotatorSpec, EnsembleSpec, Preprocessing, load_annotator, load_ensemble
from labelstore.pipelines.annotators.ensemble import Ensemble, normalised

SIZES = {"large": 7 * CELL, "small": 4 * CELL}


class Lopsided(Colours):
    """Sees red where it is red, but on the left half of its input alone."""

    def forward_dense(self, x: Tensor) -> Tensor:
        logits = super().forward_dense(x)
        half = logits.shape[3] // 2
        return torch.cat([logits[..., :half], torch.zeros_like(logits[..., half:])], dim=3)


def network(size: int, kind: type[Colours] = Colours, mean: float = 0.0, **labels: Any) -> Any:
    module = kind()
    for name, value in labels.items():
        setattr(module, name, value)
    return module, Preprocessing(size, (mean,) * 3, (1.0, 1.0, 1.0), "bilinear")


def head(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, classes, CELL, CELL), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(autouse=True)
def factories(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of annotators; tests put more into it."""
    module: Any = ModuleType("own_models")
    module.large = lambda: network(SIZES["large"])
    module.small = lambda: network(SIZES["small"], mean=0.25)
    module.lopsided = lambda: network(SIZES["large"], Lopsided)
    monkeypatch.setitem(sys.modules, "own_models", module)
    return module


def ensemble(*names: str, **more: Any) -> Ensemble:
    return load_ensemble(EnsembleSpec(tuple(AnnotatorSpec(f"own_models:{name}") for name in names), **more))


def pixels(size: int, count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


def dense(name: str, of: Tensor) -> Tensor:
    annotator = load_annotator(AnnotatorSpec(f"own_models:{name}"))
    return annotator.dense(normalised(of, annotator.info.preprocessing))


# Averages


def test_pixels_are_normalised_as_torchvision_does() -> None:
    from torchvision.transforms.v2.functional import normalize

    how = Preprocessing(16, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    expected = normalize(pixels(16).permute(0, 3, 1, 2).float() / 255, list(how.mean), list(how.std))
    torch.testing.assert_close(normalised(pixels(16), how), expected)


def test_one_annotator_is_itself() -> None:
    one = ensemble("large")
    assert torch.equal(one.logits([pixels(56)]), dense("large", pixels(56)))
    assert one.info.combined == one.info.members[0] == load_annotator(AnnotatorSpec("own_models:large")).info


def test_logits_are_averaged_on_the_grid_of_the_first() -> None:
    large, small = pixels(56), pixels(32)
    parts = {name: dense(name, of) for name, of in (("large", large), ("small", small))}
    assert (parts["large"].shape, parts["small"].shape) == ((3, 8, 7, 7), (3, 8, 4, 4))
    for first, second, inputs in (("large", "small", [large, small]), ("small", "large", [small, large])):
        both = ensemble(first, second)
        assert both.info.combined.map_size == tuple(parts[first].shape[2:])
        assert [how.input_size for how in both.inputs] == [SIZES[first], SIZES[second]]
        grid = parts[first].shape[2:]
        moved = interpolate(parts[second], grid, mode="bilinear", align_corners=False, antialias=True)
        torch.testing.assert_close(both.logits(inputs), (parts[first] + moved) / 2)


def test_three_annotators_count_alike() -> None:
    three = ensemble("large", "small", "large")
    large, small = pixels(56), pixels(32)
    moved = interpolate(dense("small", small), (7, 7), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(three.logits([large, small]), (2 * dense("large", large) + moved) / 3)


def test_members_with_the_same_size_and_interpolation_share_their_pixels(factories: Any) -> None:
    factories.bright = lambda: network(SIZES["large"], mean=0.5)
    both = ensemble("large", "bright")
    assert len(both.inputs) == 1
    expected = (dense("large", pixels(56)) + dense("bright", pixels(56))) / 2
    torch.testing.assert_close(both.logits([pixels(56)]), expected)
    factories.sharp = lambda: (Colours(), Preprocessing(56, (0,) * 3, (1,) * 3, "lanczos"))
    three = ensemble("large", "sharp", "bright")
    assert [how.interpolation for how in three.inputs] == ["bilinear", "lanczos"]


def test_a_map_that_is_hot_on_the_left_stays_there() -> None:
    red = torch.zeros(1, 56, 56, 3, dtype=torch.uint8)
    red[..., 0] = 255
    red[:, :, 28:, 1] = 128  # the right half is orange
    left = ensemble("lopsided").logits([red])[0, NAMES.index("black")]
    assert (left[:, :3] != 0).all()
    assert (left[:, 3:] == 0).all()
    both = ensemble("lopsided", flip=True).logits([red])[0, NAMES.index("black")]
    mirrored = ensemble("lopsided").logits([red.flip(2)])[0, NAMES.index("black")].flip(1)
    torch.testing.assert_close(both, (left + mirrored) / 2)
    torch.testing.assert_close(both[:, :3], left[:, :3] / 2)  # what is seen on the left without the mirror
    assert (both[:, 4:] != 0).all()
    assert (both[:, 3] == 0).all()


def test_flip_changes_nothing_for_annotators_that_see_both_sides_alike() -> None:
    inputs = [pixels(56), pixels(32)]
    torch.testing.assert_close(ensemble("large", "small", flip=True).logits(inputs), ensemble("large", "small").logits(inputs))


def test_flip_mirrors_left_and_right_and_not_top_and_bottom(factories: Any) -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    factories.real = lambda: (module, Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bilinear"))
    image = pixels(32)
    expected = (dense("real", image) + dense("real", image.flip(2)).flip(3)) / 2
    torch.testing.assert_close(ensemble("real", flip=True).logits([image]), expected)
    assert not torch.allclose(expected, (dense("real", image) + dense("real", image.flip(1)).flip(2)) / 2)


def test_the_mirror_image_of_an_image_has_the_mirrored_map() -> None:
    spec = EnsembleSpec((AnnotatorSpec("timm:test_resnet", random_weights=True),), flip=True)
    both, image = load_ensemble(spec), pixels(160, 1)
    torch.testing.assert_close(both.logits([image.flip(2)]), both.logits([image]).flip(3), rtol=1e-4, atol=1e-4)


# Classes


def test_another_number_of_classes_is_refused(factories: Any) -> None:
    factories.ten = lambda: head(10)
    with pytest.raises(AnnotatorError, match=r"must have the same classes: own_models:large has 8, own_models:ten 10"):
        ensemble("large", "ten")


@pytest.mark.parametrize("labels", ["class_ids", "class_names"])
def test_classes_in_another_order_are_refused(factories: Any, labels: str) -> None:
    factories.first = lambda: network(56, **{"class_ids": None, labels: NAMES})
    order = (*NAMES[:2], NAMES[3], NAMES[2], *NAMES[4:])
    factories.other = lambda: network(56, **{"class_ids": None, labels: order})
    with pytest.raises(
        AnnotatorError, match=r"same classes in the same order: class 2 is red of own_models:first and green of"
    ):
        ensemble("first", "other")


def test_other_class_ids_are_refused_even_with_the_same_names(factories: Any) -> None:
    factories.other = lambda: network(56, class_ids=tuple("abcdefgh"))
    with pytest.raises(AnnotatorError, match="class 0 is colour-black of own_models:large and a of own_models:other"):
        ensemble("large", "other")


def test_names_may_be_spelled_differently_and_what_one_knows_is_taken(factories: Any) -> None:
    factories.loud = lambda: network(56, class_ids=None, class_names=tuple(map(str.upper, NAMES)))
    factories.silent = lambda: network(56, class_ids=None, class_names=None)
    info = ensemble("loud", "large").info.combined
    assert (info.class_names, info.class_ids) == (tuple(map(str.upper, NAMES)), Colours.class_ids)
    info = ensemble("silent", "large").info.combined
    assert (info.class_names, info.class_ids) == (NAMES, Colours.class_ids)
    assert ensemble("silent", "silent").info.combined.class_names is None


def test_timms_and_torchvisions_classes_are_the_same() -> None:
    names = ("timm:test_resnet", "torchvision:shufflenet_v2_x0_5")
    both = load_ensemble(EnsembleSpec(tuple(AnnotatorSpec(name, 64, random_weights=True) for name in names)))
    assert both.info.combined.name == " + ".join(names)
    assert [member.name for member in both.info.members] == list(names)


def test_the_digest_is_over_all_members_in_their_order(factories: Any) -> None:
    factories.faded = lambda: network(56, palette=Colours().palette / 2)
    names = ("large", "faded"), ("faded", "large"), ("large", "large"), ("large",), ("faded",)
    assert len({ensemble(*each).info.combined.weights_sha256 for each in names}) == 5
    assert ensemble("large", "large").info == ensemble("large", "large").info


def test_a_program_may_be_a_member(tmp_path: Path, factories: Any) -> None:
    module = Colours().eval()
    module.forward = module.forward_dense
    program = torch.export.export(module, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    says = '{"mean": [0, 0, 0], "std": [1, 1, 1]}'
    torch.export.save(program, tmp_path / "small.pt2", extra_files={"labelstore.json": says})
    spec = EnsembleSpec((AnnotatorSpec("own_models:large"), AnnotatorSpec(str(tmp_path / "small.pt2"))))
    factories.tiny = lambda: network(32)
    expected = ensemble("large", "tiny").logits([pixels(56), pixels(32)])
    torch.testing.assert_close(load_ensemble(spec).logits([pixels(56), pixels(32)]), expected)
