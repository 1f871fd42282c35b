"""The box beside the image: against what is read off images whose pixels say where they lie."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ramps import box_shown, ramp_tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from labelstore.errors import BoxError, LabelStoreError, TransformError
from labelstore.torch.region import CropBox, Window
from labelstore.torch.steps import REFUSED, STILL, TOLD

NAN = float("nan")
ROUGH = {"antialias": False}  # antialiasing bends a ramp a little, which says nothing of where it lies
FOLLOWED = {
    "RandomResizedCrop": v2.RandomResizedCrop((31, 44), scale=(0.2, 1.0), **ROUGH),
    "RandomCrop": v2.RandomCrop((24, 20)),
    "RandomCrop with padding": v2.RandomCrop(36, padding=[3, 5], fill=NAN, pad_if_needed=True),
    "RandomCrop with four paddings": v2.RandomCrop((30, 34), padding=[1, 2, 3, 4], fill=NAN, pad_if_needed=True),
    "CenterCrop smaller": v2.CenterCrop((21, 24)),
    "CenterCrop bigger": v2.CenterCrop((95, 98)),
    "CenterCrop bigger one way": v2.CenterCrop((95, 21)),
    "Resize int": v2.Resize(25, **ROUGH),
    "Resize tuple": v2.Resize((50, 33), **ROUGH),
    "Resize max_size": v2.Resize(30, max_size=37, **ROUGH),
    "Resize None": v2.Resize(None, max_size=37, **ROUGH),
    "Pad int": v2.Pad(4, fill=NAN),
    "Pad two": v2.Pad([4, 1], fill=NAN),
    "Pad four": v2.Pad([1, 2, 3, 4], fill=NAN),
    "Pad negative": v2.Pad([-3, 2, -1, -4], fill=NAN),
    "RandomHorizontalFlip": v2.RandomHorizontalFlip(),
    "RandomVerticalFlip": v2.RandomVerticalFlip(),
    "RandomZoomOut": v2.RandomZoomOut(fill=NAN, side_range=(1.0, 2.0)),
    "ScaleJitter": v2.ScaleJitter((48, 40), scale_range=(0.5, 1.5), **ROUGH),
    "RandomShortestSize": v2.RandomShortestSize([24, 31], max_size=45, **ROUGH),
    "RandomResize": v2.RandomResize(20, 50, **ROUGH),
    "nested": v2.Compose(
        [
            v2.RandomChoice([v2.RandomCrop((26, 28)), v2.CenterCrop(27), v2.RandomResizedCrop(29, scale=(0.4, 1), **ROUGH)]),
            v2.RandomApply([v2.RandomHorizontalFlip(), v2.Resize((40, 31), **ROUGH)], p=0.5),
            v2.RandomOrder([v2.RandomVerticalFlip(), v2.Resize(33, **ROUGH), v2.RandomHorizontalFlip(0.7)]),
        ]
    ),
    "padded, then cropped": v2.Compose([v2.Pad([7, 2, 1, 9], fill=NAN), v2.RandomHorizontalFlip(), v2.RandomCrop(32)]),
}


def run(transform, height, width, seed):
    torch.manual_seed(seed)
    image, box = transform(ramp_tensor(height, width), CropBox.whole(height, width))
    assert type(box) is CropBox
    assert tuple(box.tolist()[4:]) == image.shape[-2:]
    return image, box


@pytest.mark.parametrize("name", FOLLOWED)
@settings(max_examples=30)
@given(height=st.integers(26, 64), width=st.integers(28, 64), seed=st.integers(0, 2**32 - 1))
def test_the_box_is_where_the_pixels_are(name, height, width, seed):
    image, box = run(FOLLOWED[name], height, width, seed)
    np.testing.assert_allclose(box.fractions(), box_shown(image.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric"])
def test_padding_with_pixels_moves_the_box_like_padding_with_a_colour(mode):
    for seed in range(5):
        boxes = [
            run(v2.RandomCrop(30, padding=[5, 1, 2, 3], padding_mode=kind), 32, 40, seed)[1] for kind in (mode, "constant")
        ]
        assert torch.equal(*map(CropBox.fractions, boxes))
    assert run(v2.Pad(4, padding_mode=mode), 32, 40, 0)[1].fractions().tolist() == [-0.1, -0.125, 1.1, 1.125]


def test_antialiasing_makes_no_difference():
    for seed in range(5):
        boxes = [run(v2.RandomResizedCrop((31, 44), antialias=smooth), 50, 60, seed)[1] for smooth in (True, False)]
        assert torch.equal(*map(CropBox.fractions, boxes))


def test_a_crop_is_the_exact_fraction():
    box = F.crop(CropBox.whole(480, 640), 48, 64, 120, 160)
    assert box.fractions().tolist() == [0.1, 0.1, 0.35, 0.35]
    assert F.horizontal_flip(box).fractions().tolist() == [0.35, 0.1, 0.1, 0.35]
    assert F.vertical_flip(box).fractions().tolist() == [0.1, 0.35, 0.35, 0.1]


@pytest.mark.parametrize("make", [Image.new("RGB", (40, 32)), tv_tensors.Image(torch.zeros(3, 32, 40)), torch.zeros(3, 32, 40)])
def test_any_kind_of_image_beside_it(make):
    transform = v2.Compose(
        [v2.RandomResizedCrop(24), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    )
    torch.manual_seed(3)
    image, box = transform(make, CropBox.whole(32, 40))
    assert image.shape == (3, 24, 24)
    assert torch.equal(box.fractions(), run(transform, 32, 40, 3)[1].fractions())


REFUSING = [
    v2.RandomRotation(20),
    v2.RandomAffine(0, translate=(0.2, 0.2)),
    v2.RandomPerspective(p=1.0),
    v2.ElasticTransform(),
    v2.FiveCrop(8),
    v2.TenCrop(8),
]


@pytest.mark.parametrize("transform", REFUSING, ids=lambda transform: type(transform).__name__)
def test_what_bends_or_multiplies_is_refused(transform):
    with pytest.raises(TransformError, match=r"the crop's box cannot be followed"):
        transform(ramp_tensor(48, 48), CropBox.whole(48, 48))


@pytest.mark.parametrize("name", ["rotate", "affine", "perspective", "elastic", "elastic_transform", "five_crop", "ten_crop"])
def test_refused_as_functionals_too(name):
    arguments = {
        "rotate": (20,),
        "affine": (20, [0, 0], 1.0, [0.0, 0.0]),
        "perspective": ([[0, 0]] * 4, [[0, 0]] * 4),
        "elastic": (torch.zeros(1, 8, 8, 2),),
        "elastic_transform": (torch.zeros(1, 8, 8, 2),),
        "five_crop": ([4, 4],),
        "ten_crop": ([4, 4],),
    }
    with pytest.raises(TransformError):
        getattr(F, name)(CropBox.whole(8, 8), *arguments[name])


PIXELS = [
    v2.ColorJitter(0.5, 0.5, 0.5, 0.5),
    v2.ConvertImageDtype(torch.float32),
    v2.GaussianBlur(3),
    v2.GaussianNoise(),
    v2.Grayscale(3),
    v2.Identity(),
    v2.LinearTransformation(torch.eye(192), torch.zeros(192)),
    v2.Normalize([0.5] * 3, [0.5] * 3),
    v2.RGB(),
    v2.RandomAdjustSharpness(2.0, p=1.0),
    v2.RandomAutocontrast(p=1.0),
    v2.RandomChannelPermutation(),
    v2.RandomEqualize(p=1.0),
    v2.RandomErasing(p=1.0),
    v2.RandomGrayscale(p=1.0),
    v2.RandomInvert(p=1.0),
    v2.RandomPhotometricDistort(p=1.0),
    v2.RandomPosterize(3, p=1.0),
    v2.RandomSolarize(0.5, p=1.0),
    v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}),
    v2.ToImage(),
    v2.UniformTemporalSubsample(1),
    v2.ClampBoundingBoxes(),
    v2.ClampKeyPoints(),
    v2.ConvertBoundingBoxFormat("XYXY"),
    v2.SetClampingMode("soft"),
]


@pytest.mark.parametrize("transform", PIXELS, ids=lambda transform: type(transform).__name__)
def test_steps_that_change_pixels_leave_it_alone(transform):
    box = CropBox([0.25, 0.5, 0.125, 0.75, 8, 8])
    image = tv_tensors.Image(torch.rand(3, 8, 8) if "UniformTemporal" not in str(transform) else torch.rand(1, 3, 8, 8))
    if isinstance(transform, v2.RandomEqualize | v2.RandomPosterize):
        image = tv_tensors.Image(torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8))
    _, after = transform(image, box)
    assert type(after) is CropBox
    assert after.tolist() == box.tolist()


def test_every_transform_of_this_torchvision_has_been_thought_of():
    names = {f"v2.{name}" for name, one in vars(v2).items() if isinstance(one, type) and issubclass(one, v2.Transform)}
    containers = {f"v2.{name}" for name in ("Compose", "RandomApply", "RandomChoice", "RandomOrder")}
    augmentations = {f"v2.{name}" for name in ("AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide")}
    kinds = [STILL, TOLD, REFUSED.keys(), containers, augmentations, {"v2.Lambda", "v2.Transform"}]
    assert names == {name for kind in kinds for name in kind if name.startswith("v2.")}
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    assert {type(one).__name__ for one in FOLLOWED.values()} - {"Compose"} == {name[3:] for name in TOLD}
    tested = {f"v2.{type(one).__name__}" for one in PIXELS}
    tested_below = {"v2.JPEG", "v2.PILToTensor", "v2.ToPILImage", "v2.ToPureTensor", "v2.ToTensor"}
    assert tested | tested_below == {name for name in STILL if name.startswith("v2.")}


def test_conversions_leave_it_alone_too_but_for_to_pure_tensor():
    box = CropBox.whole(8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # v2.ToTensor is deprecated, and JPEG's encoder
        for transform in (v2.PILToTensor(), v2.ToTensor()):
            assert transform(Image.new("RGB", (8, 8)), box)[1] is box
        assert v2.JPEG(50)(torch.zeros(3, 8, 8, dtype=torch.uint8), box)[1] is box
    assert v2.ToPILImage()(torch.rand(3, 8, 8), box)[1] is box
    pure = v2.ToPureTensor()(tv_tensors.Image(torch.rand(3, 8, 8)), box)[1]
    assert type(pure) is torch.Tensor
    assert torch.equal(CropBox(pure).fractions(), box.fractions())


def test_copies_pickles_and_plain_numbers():
    box = F.crop(CropBox.whole(10, 20), 1, 2, 5, 8)
    for other in (copy.deepcopy(box), copy.copy(box), pickle.loads(pickle.dumps(box)), CropBox(box.window()), box.clone()):
        assert type(other) is CropBox
        assert other.tolist() == box.tolist()
    fractions = box.fractions()
    assert type(fractions) is torch.Tensor
    assert fractions.dtype == torch.float64
    assert fractions.untyped_storage().nbytes() == 32  # what a worker sends is four numbers, no view of six
    with tv_tensors.set_return_type("TVTensor"):
        assert type(box.fractions()) is torch.Tensor
    batch = default_collate([box.fractions(), box.fractions()])
    assert type(batch) is torch.Tensor
    assert batch.shape == (2, 4)
    assert batch.dtype == torch.float64


@pytest.mark.parametrize("data", [[0, 0, 1, 1], torch.zeros(2, 6), 3.0])
def test_six_numbers_or_nothing(data):
    with pytest.raises(BoxError, match="expected 6 numbers"):
        CropBox(data)


def test_the_error_is_also_the_builtin_that_one_expects():
    assert issubclass(TransformError, LabelStoreError)
    assert issubclass(TransformError, TypeError)


def test_a_window_keeps_its_canvas():
    window = Window.whole(30, 40).crop(3, 4, 10, 20).resize(5, 6).mirror(x=True, y=True)
    assert window == (24 / 40, 13 / 30, 4 / 40, 3 / 30, 5, 6)
    assert window.fractions().tolist() == list(window[:4])
