"""Any transform, with the box that it crops: the same image as without, and the box that the pixels show."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import timm.data
import torch
from following import CLOSE, SEEDS, after, assert_same, follow_one, photograph, shown_by
from PIL import Image, ImageFilter, ImageOps
from timm.data import auto_augment, naflex_transforms, random_erasing
from timm.data import transforms as timm_transforms
from timm.utils import random_seed
from torch import nn
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.transforms import _presets as presets
from torchvision.transforms import v2

from labelstore.errors import TransformError
from labelstore.torch.follow import FollowedTransform, follow
from labelstore.torch.region import CropBox
from labelstore.torch.rules import RULES
from labelstore.torch.steps import REFUSED, STILL

V2 = {
    "presets": v2.Compose(
        [
            v2.RandomResizedCrop(48),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4),
            v2.ToImage(),
            v2.RandomErasing(p=1.0),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
            v2.ToPureTensor(),
        ]
    ),
    "one step": v2.RandomResizedCrop(48),
    "nested": v2.Compose(
        [
            v2.RandomChoice(
                [v2.RandomCrop(60, padding=3), v2.CenterCrop((130, 50)), nn.Sequential(v2.Resize(40))], p=[1, 2, 3]
            ),
            v2.RandomApply(nn.ModuleList([v2.RandomVerticalFlip(), v2.RandomZoomOut()])),
            v2.RandomOrder([v2.RandomHorizontalFlip(), v2.RandomGrayscale(), v2.Resize(32)]),
        ]
    ),
    "dtype by type": v2.Compose(
        [v2.ToImage(), v2.RandomCrop(40), v2.ToDtype({tv_tensors.Image: torch.float32, "others": torch.float16}), v2.Resize(20)]
    ),
}


@pytest.mark.parametrize("name", V2)
@pytest.mark.parametrize("kind", ["PIL", "tensor", "tv_tensor"])
def test_v2_pipelines(name, kind):
    image = photograph()
    if kind != "PIL":
        image = v2.functional.pil_to_tensor(image) if kind == "tensor" else v2.functional.to_image(image)
    pure = v2.Compose([one for one in V2[name].transforms if "Pure" not in str(one)]) if name == "presets" else V2[name]
    for seed in SEEDS:
        box = follow_one(V2[name], image, seed)
        random_seed(seed)
        beside = pure(image, CropBox.whole(90, 120))[1] if name != "nested" else None
        assert beside is None or box.tolist() == beside.fractions().tolist()


class Blur:
    """As in DeiT's 3-Augment: no step of any library, but one can see what it does."""

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(1.5))


V1 = {
    "imagenet": [v1.RandomResizedCrop(48), v1.RandomHorizontalFlip(), v1.ColorJitter(0.4, 0.4, 0.4)],
    "rectangle": [v1.RandomResizedCrop((40, 60), scale=(0.3, 1)), v1.RandomVerticalFlip()],
    "eval": [v1.Resize(56), v1.CenterCrop(48)],
    "eval, bigger": [v1.Resize((50, 70)), v1.CenterCrop((64, 60))],
    "resize max_size": [v1.Resize(56, max_size=64), v1.RandomCrop(40)],
    "pad": [v1.Pad([3, 1, 6, 2]), v1.RandomHorizontalFlip(), v1.Pad(2, padding_mode="edge"), v1.Pad([4, 5])],
    "random crop, padded": [v1.RandomCrop(88, padding=4), v1.RandomHorizontalFlip()],
    "random crop, four paddings": [v1.RandomCrop((80, 90), padding=[9, 2, 4, 1], pad_if_needed=True)],
    "random crop, pad if needed": [v1.RandomCrop((130, 100), pad_if_needed=True)],
    "random crop, both": [v1.RandomCrop((130, 140), padding=3, pad_if_needed=True)],
    "containers": [
        v1.RandomApply([v1.RandomCrop(70), v1.RandomHorizontalFlip()], p=0.6),
        v1.RandomChoice([v1.RandomHorizontalFlip(), v1.RandomResizedCrop(50)], p=[0.3, 0.7]),
        v1.RandomOrder([v1.RandomCrop(40), v1.RandomVerticalFlip()]),
    ],
    "own functions": [
        v1.Lambda(lambda image: image.convert("RGB") if image.mode == "RGB" else image),
        Blur(),
        ImageOps.mirror,
        v1.Lambda(lambda image: image.crop((10.2, 5, 100.7, 80)).resize((60, 40), box=(1.5, 2.5, 80.5, 70))),
        lambda image: image.transpose(Image.Transpose.ROTATE_180),
        v1.RandomCrop((30, 41)),
    ],
    "v2 among v1": [v1.RandomResizedCrop(60), v2.RandomCrop(50, padding=2), v1.RandomHorizontalFlip(), v2.CenterCrop((40, 70))],
    "sequential": [nn.Sequential(v1.Resize(50), v1.RandomCrop(40)), nn.Identity()],
}
TO_TENSOR = [v1.ToTensor(), v1.Normalize([0.5] * 3, [0.5] * 3), v1.RandomErasing(p=1.0)]


@pytest.mark.parametrize("name", V1)
@pytest.mark.parametrize("seed", SEEDS)
def test_v1_pipelines(name, seed):
    box = follow_one(v1.Compose(V1[name] + TO_TENSOR), photograph(), seed)
    moving = [step for step in V1[name] if not isinstance(step, v1.ColorJitter | Blur)]  # these are not for images of mode F
    np.testing.assert_allclose(box, shown_by(v1.Compose(moving), 90, 120, seed), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "F"])
def test_images_of_all_modes(mode):
    image = photograph().convert("L").convert(mode)
    transform = v1.Compose([v1.RandomResizedCrop(40), v1.RandomHorizontalFlip(), v1.RandomCrop(42, padding=3)])
    for seed in SEEDS:
        assert follow_one(transform, image, seed).tolist() == follow_one(transform, photograph(), seed).tolist()


def test_a_file_just_opened(tmp_path):
    photograph().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        made, box = follow(v1.RandomHorizontalFlip(p=0.0))(image)
    assert_same(made, photograph())
    assert box.tolist() == [0, 0, 1, 1]


def test_tensors_through_v1_where_that_is_known():
    image = torch.rand(3, 90, 120)
    for seed in SEEDS:
        transform = v1.Compose([v1.RandomCrop((130, 100), padding=4, pad_if_needed=True), v1.CenterCrop(96), v1.Pad(2)])
        on_tensor, on_image = follow_one(transform, image, seed), follow_one(transform, photograph(), seed)
        assert on_tensor.tolist() == on_image.tolist()


def test_the_presets_of_torchvisions_weights():
    preset = presets.ImageClassification(crop_size=48, resize_size=60)
    geometry = v1.Compose([v1.Resize(60), v1.CenterCrop(48)])
    for height, width in [(90, 120), (120, 90), (300, 100)]:
        box = follow_one(preset, photograph(height, width), 0)
        np.testing.assert_allclose(box, shown_by(geometry, height, width, 0), rtol=0, atol=CLOSE)
        assert box.tolist() == follow_one(preset, torch.rand(3, height, width), 0).tolist()


TIMM_TRAINING = {
    "default": {},
    "rectangle": {"input_size": (3, 40, 56), "interpolation": "random"},
    "everything": {
        "vflip": 0.5,
        "color_jitter": (0.4, 0.4, 0.4, 0.1),
        "color_jitter_prob": 0.5,
        "grayscale_prob": 0.5,
        "gaussian_blur_prob": 0.5,
        "re_prob": 0.9,
        "re_mode": "pixel",
        "re_count": 3,
        "interpolation": "bicubic",
    },
    "3-augment": {"auto_augment": "3a", "re_prob": 0.5},
    "rand, 3a": {"auto_augment": "rand-m9-mstd0.5-inc1-t3a"},
    "prefetcher": {"use_prefetcher": True},
    "no normalize": {"normalize": False},
    "rkrc": {"train_crop_mode": "rkrc"},
    "rkrr": {"train_crop_mode": "rkrr", "scale": (0.5, 1.5)},
    "no_aug": {"no_aug": True},
    "naflex": {"naflex": True, "patch_size": 8, "max_seq_len": 36, "patchify": True},
}
TIMM_EVAL = {
    "center": {},
    "rectangle": {"input_size": (3, 40, 56)},
    "squash": {"crop_mode": "squash", "crop_pct": 1.0},
    "border": {"crop_mode": "border", "crop_pct": 0.9},
    "trimmed": {"crop_border_pixels": 4},
    "naflex": {"naflex": True, "patch_size": 8, "max_seq_len": 36, "patchify": True},
}
TIMM = {f"train, {name}": {"is_training": True, **options} for name, options in TIMM_TRAINING.items()} | {
    f"eval, {name}": {"is_training": False, **options} for name, options in TIMM_EVAL.items()
}
TIMM_MOVES = {
    "RandomResizedCrop",
    "RandomResizedCropAndInterpolation",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "ResizeKeepRatio",
    "CenterCrop",
    "Resize",
    "CenterCropOrPad",
    "RandomCropOrPad",
    "TrimBorder",
    "RandomResizedCropToSequence",
    "ResizeToSequence",
}


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("seed", SEEDS)
def test_timm(name, seed):
    transform = timm.data.create_transform(**{"input_size": 48} | TIMM[name])
    box = follow_one(transform, photograph(), seed)
    moving = copy.deepcopy(v1.Compose([step for step in transform.transforms if type(step).__name__ in TIMM_MOVES]))
    assert moving.transforms
    for step in moving.transforms:
        step.fill = 0  # a colour of three numbers is not for images of mode F
    np.testing.assert_allclose(box, shown_by(moving, 90, 120, seed), rtol=0, atol=CLOSE)


MORE_OF_TIMM = {
    "CenterCropOrPad": timm_transforms.CenterCropOrPad((130, 60), fill=0),
    "RandomCropOrPad": timm_transforms.RandomCropOrPad((130, 60), fill=0),
    "RandomCropOrPad, all": timm_transforms.RandomCropOrPad((130, 150), fill=0),
    "RandomPad": timm_transforms.RandomPad((130, 125)),
    "ResizeKeepRatioToSequence": naflex_transforms.ResizeKeepRatioToSequence(
        8, 64, random_scale_prob=1.0, random_aspect_prob=1.0
    ),
    "CenterCropToSequence": naflex_transforms.CenterCropToSequence(8, 64),
}


@pytest.mark.parametrize("name", MORE_OF_TIMM)
@pytest.mark.parametrize("seed", SEEDS)
def test_more_of_timm(name, seed):
    transform = v1.Compose([MORE_OF_TIMM[name], timm_transforms.ToNumpy()])
    box = follow_one(transform, photograph(), seed)
    np.testing.assert_allclose(box, shown_by(MORE_OF_TIMM[name], 90, 120, seed), rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (timm_transforms.RandomResizedCropAndInterpolation, lambda: timm.data.create_transform(48, is_training=True)),
        (v1.RandomResizedCrop, lambda: v1.Compose([v1.RandomResizedCrop(48), v1.RandomHorizontalFlip(), v1.ToTensor()])),
        (v1.RandomCrop, lambda: v1.Compose([v1.RandomCrop(48), v1.RandomHorizontalFlip(), v1.ToTensor()])),
    ],
)
def test_the_box_is_what_get_params_drew(monkeypatch, kind, make):
    drawn, get_params = [], kind.get_params
    monkeypatch.setattr(kind, "get_params", staticmethod(lambda *given: drawn.append(get_params(*given)) or drawn[-1]))
    followed, mirrored = follow(make()), 0
    for seed in range(20):
        (_, box), _ = after(followed, photograph(), seed)
        top, left, height, width = drawn[-1]
        x1, y1, x2, y2 = box.tolist()
        mirrored += x1 > x2
        expected = [left / 120, top / 90, (left + width) / 120, (top + height) / 90]
        np.testing.assert_allclose([min(x1, x2), y1, max(x1, x2), y2], expected, rtol=0, atol=1e-12)
    assert 0 < mirrored < 20


STILL_STEPS = [
    v1.ColorJitter(0.4, 0.4, 0.4, 0.1),
    v1.GaussianBlur(3),
    v1.Grayscale(3),
    v1.RandomAdjustSharpness(2, p=1.0),
    v1.RandomAutocontrast(p=1.0),
    v1.RandomEqualize(p=1.0),
    v1.RandomGrayscale(p=1.0),
    v1.RandomInvert(p=1.0),
    v1.RandomPosterize(3, p=1.0),
    v1.RandomSolarize(128, p=1.0),
    v1.PILToTensor(),
    v1.ConvertImageDtype(torch.float32),
    v1.Normalize([0.5] * 3, [0.5] * 3),
    v1.RandomErasing(p=1.0),
    v1.ToPILImage(),
    v1.ToTensor(),
    v1.LinearTransformation(torch.eye(3 * 9 * 12), torch.zeros(3 * 9 * 12)),
]


def test_v1_steps_that_leave_pixels_in_place():
    assert follow_one(v1.Compose(STILL_STEPS), photograph().resize((12, 9)), 0).tolist() == [0, 0, 1, 1]


WATCHED = {f"v1.{name}" for name in ("Lambda", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomResizedCrop", "Resize")}
WATCHED |= {f"timm.{name.partition(',')[0]}" for name in (*TIMM_MOVES, *MORE_OF_TIMM, "RandomCropToSequence")}
CONTAINERS = {f"v1.{name}" for name in ("Compose", "RandomApply", "RandomChoice", "RandomOrder")}
AUTOMATIC = {f"timm.{name}" for name in ("AugmentOp", "RandAugment", "AutoAugment", "AugMixAugment")}


def test_every_transform_of_this_torchvision_v1_and_this_timm_has_been_thought_of():
    found = {f"v1.{name}": one for name, one in vars(v1).items()}
    for module in (timm_transforms, naflex_transforms, random_erasing, auto_augment):
        found |= {
            f"timm.{name}": one for name, one in vars(module).items() if str(one).startswith(f"<class '{module.__name__}.")
        }
    names = {name for name, one in found.items() if isinstance(one, type) and "__call__" in dir(one)}
    known = {name for name in {*STILL, *REFUSED, *RULES} if name.startswith(("v1.", "timm."))} - {"v1.ImageClassification"}
    assert not names - known - WATCHED - CONTAINERS - AUTOMATIC
    assert known <= names
    assert {f"v1.{type(step).__name__}" for step in STILL_STEPS} == {name for name in STILL if name.startswith("v1.")}


def add_noise(image):
    return image + torch.rand(image.shape)


class Noise:
    def __call__(self, image):
        return add_noise(image)


class Swirl(v2.Transform):
    """A transform of someone's own that draws and crops as torchvision wants it."""

    def make_params(self, flat_inputs):
        return {"top": int(torch.randint(0, 10, ()))}

    def transform(self, inpt, params):
        return self._call_kernel(v2.functional.crop, inpt, params["top"], 3, 50, 60)


class Drawn(v2.RandomResizedCrop):
    """Draws in its own way: the transform is torchvision's."""

    def make_params(self, flat_inputs):
        return {"top": 9, "left": 12, "height": 45, "width": 60}


def test_steps_of_ones_own_that_can_be_seen_through():
    assert follow_one(v2.Compose([v2.ToImage(), Drawn(20)]), photograph(), 0).tolist() == [0.1, 0.1, 0.6, 0.6]
    box = follow_one(Swirl(), photograph(), 0)  # a PIL image notes the crop
    assert box.tolist() == follow_one(v2.Compose([v2.ToImage(), Swirl()]), photograph(), 0, trusted=[Swirl]).tolist()
    assert box[[0, 2]].tolist() == [3 / 120, 63 / 120]


class Turning(v2.ColorJitter):
    """Derived from a step that leaves pixels in place, and does not."""

    def transform(self, inpt, params):
        return v2.functional.rotate(inpt, 90)


def test_a_subclass_with_code_of_its_own_is_not_taken_for_what_it_derives_from():
    follow(v2.Compose([v2.ToImage(), v2.ColorJitter()]))
    with pytest.raises(TransformError, match=r"Turning is given a tensor"):
        follow(v2.Compose([v2.ToImage(), Turning()]))
    with pytest.raises(TransformError, match=r"rotate: the crop's box cannot be followed"):
        follow(Turning())(photograph())


@pytest.mark.parametrize("step", [Noise(), add_noise, v1.Lambda(add_noise), v2.Lambda(add_noise)], ids=str)
def test_steps_of_ones_own_are_refused_on_tensors_unless_trusted(step):
    transform = v2.Compose([v2.RandomResizedCrop(30), v2.ToImage(), v2.ToDtype(torch.float32), step])
    with pytest.raises(TransformError, match=r"transform\[3\]: \S+ is given a tensor: .* trusted="):
        follow(transform)
    for trusted in ([step], [type(step)]):
        assert (
            follow_one(transform, photograph(), 1, trusted=trusted).tolist()
            == follow_one(V2["one step"], photograph(), 1).tolist()
        )
    bare = v2.Compose([step])  # not known when it is wrapped: the image may be either
    with pytest.raises(TransformError, match=r"transform\[0\]: \S+ is given a torch.Tensor"):
        follow(bare)(torch.rand(3, 8, 8))


def test_a_trusted_step_that_changes_the_size_behind_the_box_is_caught():
    transform = v2.Compose([v2.ToImage(), lambda image: image[:, 2:]])
    with pytest.raises(TransformError, match=r"transform\[1\]: .*<lambda> is trusted .* 88 x 120 pixels .* knows of 90 x 120"):
        follow(transform, trusted=[transform.transforms[1]])(photograph())


REFUSED_STEPS = [
    *[of.RandomRotation(20) for of in (v1, v2)],
    *[of.RandomAffine(0, translate=(0.1, 0.1)) for of in (v1, v2)],
    *[of.RandomPerspective() for of in (v1, v2)],
    *[of.ElasticTransform() for of in (v1, v2)],
    *[of.FiveCrop(8) for of in (v1, v2)],
    *[of.TenCrop(8) for of in (v1, v2)],
    *[v1.RandAugment(), v1.AutoAugment(), v1.TrivialAugmentWide(), v1.AugMix()],
    *[v2.CutMix(num_classes=4), v2.MixUp(num_classes=4)],
    *[v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes(), v2.SanitizeKeyPoints()],
]


@pytest.mark.parametrize("step", REFUSED_STEPS, ids=lambda step: f"{type(step).__module__}.{type(step).__name__}")
def test_what_cannot_be_followed_is_refused_when_it_is_wrapped(step):
    with pytest.raises(TransformError, match=rf"transform\[1\]\[0\]: torchvision\.transforms.*\.{type(step).__name__}: "):
        follow(v2.Compose([v2.Resize(30), v2.RandomApply([step], p=0.01)]))


def test_every_refused_step_is_tested():
    assert len(REFUSED_STEPS) == len(REFUSED)


def test_old_flips_of_tensors_are_refused_when_wrapped_or_used():
    with pytest.raises(TransformError, match=r"transform\[1\]: torchvision.transforms.RandomHorizontalFlip is given a tensor"):
        follow(v1.Compose([v1.ToTensor(), v1.RandomHorizontalFlip()]))
    with pytest.raises(TransformError, match=r"transform: torchvision.transforms.RandomHorizontalFlip is given a torch.Tensor"):
        follow(v1.RandomHorizontalFlip())(torch.rand(3, 8, 8))
    for there_and_back in (
        [v1.ToTensor(), v1.ToPILImage(), v1.RandomHorizontalFlip(1.0)],
        [v1.RandomChoice([v1.Compose([v1.ToTensor(), v1.ToPILImage()]), v1.RandomHorizontalFlip(1.0)], p=[0, 1])],
        [v1.RandomChoice([v1.ToTensor(), v1.RandomHorizontalFlip(1.0)], p=[0, 1]), v1.RandomHorizontalFlip(0.0)],
    ):
        assert follow_one(v1.Compose(there_and_back), photograph(), 0).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("transform", [None, 3, (v1.ToTensor(), v1.ToTensor()), v1.Compose([v1.ToTensor(), None])])
def test_what_is_no_transform(transform):
    with pytest.raises(TransformError, match="expected one callable transform"):
        follow(transform)


@pytest.mark.parametrize("image", [None, np.zeros((8, 8, 3), np.uint8), b"GIF89a", torch.zeros(3)])
def test_what_is_no_image(image):
    with pytest.raises(TransformError, match="expected a PIL image or a tensor"):
        follow(v2.Identity())(image)


def test_followed_twice_is_followed_once():
    followed = follow(v2.CenterCrop(45))
    assert follow(followed) is followed
    assert repr(followed) == "follow(CenterCrop(size=(45, 45)))"
    assert isinstance(followed, FollowedTransform)


@pytest.mark.parametrize(
    "transform",
    [
        V2["presets"],
        V2["nested"],
        v1.Compose([*V1["containers"], *TO_TENSOR]),
        timm.data.create_transform(48, is_training=True),
    ],
    ids=["v2", "v2 nested", "v1", "timm"],
)
def test_it_can_be_pickled(transform):
    followed = follow(transform)
    again = pickle.loads(pickle.dumps(followed))
    for seed in SEEDS:
        (one, box), _ = after(followed, photograph(), seed)
        (other, other_box), _ = after(again, photograph(), seed)
        assert_same(one, other)
        assert torch.equal(box, other_box)
