"""RandAugment and its kin: refused for the ops that move the image, followed without them."""

from __future__ import annotations

import pickle
from typing import ClassVar

import numpy as np
import pytest
import timm.data
from following import CLOSE, SEEDS, after, follow_one, photograph, shown_by
from PIL import Image
from timm.data import auto_augment
from torchvision import transforms as v1
from torchvision.transforms import v2

from labelstore.errors import TransformError
from labelstore.torch.augment import geometric_ops, without_geometry
from labelstore.torch.follow import follow

AUTOMATIC = {
    "RandAugment": v2.RandAugment(num_ops=3),
    "TrivialAugmentWide": v2.TrivialAugmentWide(),
    "AutoAugment": v2.AutoAugment(),
    "AutoAugment CIFAR": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "AutoAugment SVHN": v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
    "AugMix": v2.AugMix(severity=9),
    "AugMix without colours": v2.AugMix(all_ops=False),
    "timm rand": auto_augment.rand_augment_transform("rand-m9-n3-mstd0.5-inc1"),
    "timm rand weights": auto_augment.rand_augment_transform("rand-m9-n2-tweights"),
    "timm rand 3aw": auto_augment.rand_augment_transform("rand-m9-n2-t3aw"),
    "timm v0r": auto_augment.auto_augment_transform("v0r"),
    "timm original": auto_augment.auto_augment_transform("original-mstd0.5"),
    "timm augmix": auto_augment.augment_and_mix_transform("augmix-m5-w4-d2"),
    "timm augmix blended": auto_augment.augment_and_mix_transform("augmix-b1"),
}


@pytest.mark.parametrize("name", AUTOMATIC)
def test_automatic_augmentations_with_geometry_are_refused_by_the_names_of_their_ops(name):
    with pytest.raises(
        TransformError, match=r"transform\[0\]: \S+ draws from .*(Rotate|ShearX).*, which move the image .*without_geometry"
    ):
        follow(v1.Compose([AUTOMATIC[name]]))


@pytest.mark.parametrize("name", AUTOMATIC)
def test_without_geometry_nothing_moves(monkeypatch, name):
    before = geometric_ops(AUTOMATIC[name])
    transform = without_geometry(v1.Compose([v1.RandomCrop(64), v1.RandomApply([AUTOMATIC[name]], p=0.9)]))
    assert geometric_ops(AUTOMATIC[name]) == before
    transform = pickle.loads(pickle.dumps(transform))
    for moves in ("affine", "rotate"):
        monkeypatch.setattr(v2.functional, moves, None)
    for moves in ("transform", "rotate"):
        monkeypatch.setattr(Image.Image, moves, None)
    changed = 0
    for seed in range(30):
        made, _ = after(transform, photograph(), seed)
        box = follow_one(transform, photograph(), seed)
        changed += made.tobytes() != after(v1.RandomCrop(64), photograph(), seed)[0].tobytes()
        np.testing.assert_allclose(box[2:] - box[:2], [64 / 120, 64 / 90])
    assert changed > 5


def test_without_geometry_leaves_the_rest_of_a_transform_as_it_is():
    transform = timm.data.create_transform(48, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.5)
    stripped = without_geometry(transform)
    assert [type(step) for step in stripped.transforms] == [type(step) for step in transform.transforms]
    assert stripped.transforms[0] is transform.transforms[0]
    for seed in SEEDS:
        box = follow_one(stripped, photograph(), seed)
        np.testing.assert_allclose(box, shown_by(v1.Compose(transform.transforms[:2]), 90, 120, seed), rtol=0, atol=CLOSE)
    alone = v2.RandomResizedCrop(3)
    assert without_geometry(alone) is alone


def test_weights_of_what_is_left_keep_their_proportions():
    before, left = AUTOMATIC["timm rand weights"], without_geometry(AUTOMATIC["timm rand weights"])
    by_name = dict(zip([op.name for op in before.ops], before.choice_weights, strict=True))
    expected = np.array([by_name[op.name] for op in left.ops])
    np.testing.assert_allclose(left.choice_weights, expected / expected.sum())
    assert len(before.ops) == 15


class Colours(v2.RandAugment):
    """As one would write it by hand."""

    _AUGMENTATION_SPACE: ClassVar = {
        name: v2.RandAugment._AUGMENTATION_SPACE[name] for name in ("Identity", "Color", "Contrast")
    }


class Shears(v2.RandAugment):
    _AUGMENTATION_SPACE: ClassVar = {name: v2.RandAugment._AUGMENTATION_SPACE[name] for name in ("ShearX", "ShearY")}


def test_a_subclass_is_judged_by_its_ops():
    follow_one(v2.Compose([Colours(), v2.RandomCrop(40)]), photograph(), 0)
    with pytest.raises(TransformError, match=r"Shears draws from ShearX, ShearY"):
        follow(Shears())
    with pytest.raises(TransformError, match=r"Shears: every op of it moves the image"):
        without_geometry(Shears())
