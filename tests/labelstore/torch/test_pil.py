"""Functions that are given a PIL image which notes what they do: what it follows, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from following import follow_one, photograph
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import functional as v1_functional

from labelstore.errors import TransformError
from labelstore.torch.follow import follow
from labelstore.torch.pil import TrackedImage, track
from labelstore.torch.region import Window

WINDOW = Window(0.1, 0.2, 0.7, 0.5, 90, 120)
KEPT = {
    "copy": lambda image: image.copy(),
    "copy.copy": copy.copy,
    "convert": lambda image: image.convert("L"),
    "convert to the same": lambda image: image.convert("RGB"),
    "filter": lambda image: image.filter(ImageFilter.BLUR),
    "point": lambda image: image.point(lambda value: 255 - value),
    "solarize": ImageOps.solarize,
    "invert": ImageOps.invert,
    "load": lambda image: image.load() and image,
}
FOLLOWED = {
    "crop": (lambda image: image.crop((12, 9, 72, 54)), WINDOW.crop(9, 12, 45, 60)),
    "crop, beyond": (lambda image: image.crop((-12, 9, 132, 99)), WINDOW.crop(9, -12, 90, 144)),
    "crop, rounded": (lambda image: image.crop((11.6, 9.5, 72.4, 54.5)), WINDOW.crop(10, 12, 44, 60)),
    "crop of nothing": (lambda image: image.crop(), WINDOW),
    "crop of all": (lambda image: image.crop((0, 0, 120, 90)), WINDOW),
    "resize": (lambda image: image.resize((50, 70)), WINDOW.resize(70, 50)),
    "resize to the same": (lambda image: image.resize((120, 90)), WINDOW),
    "resize of a box": (
        lambda image: image.resize((50, 70), Image.Resampling.LANCZOS, (1.25, 2.5, 81.5, 42.25), 2.0),
        WINDOW.crop(2.5, 1.25, 39.75, 80.25).resize(70, 50),
    ),
    "resize with a gap": (lambda image: image.resize((12, 9), reducing_gap=1.5), WINDOW.resize(9, 12)),
    "mirror": (ImageOps.mirror, WINDOW.mirror(x=True)),
    "flip": (ImageOps.flip, WINDOW.mirror(y=True)),
    "half turn": (lambda image: image.transpose(Image.Transpose.ROTATE_180), WINDOW.mirror(x=True, y=True)),
    "fit": (lambda image: ImageOps.fit(image, (90, 90)), WINDOW.crop(0, 15, 90, 90)),
    "contain": (lambda image: ImageOps.contain(image, (60, 60)), WINDOW.resize(45, 60)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_leaves_pixels_in_place_keeps_the_box(name):
    image = KEPT[name](track(photograph(), WINDOW))
    assert type(image) is TrackedImage
    assert image.window == WINDOW
    assert image.plain().tobytes() == KEPT[name](photograph()).tobytes()


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
def test_what_moves_pixels_moves_the_box(name, mode):
    move, window = FOLLOWED[name]
    image = move(track(photograph().convert(mode), WINDOW))
    assert image.window == pytest.approx(window, rel=0, abs=1e-15)
    plain, expected = image.plain(), move(photograph().convert(mode))
    assert type(plain) is type(expected) is Image.Image
    assert (plain.mode, plain.size, plain.tobytes()) == (expected.mode, expected.size, expected.tobytes())


class Preset:
    """As in torchvision's references: a pipeline inside an object."""

    def __init__(self):
        self.transforms = v1.Compose([v1.RandomResizedCrop(48), v1.ToTensor()])

    def __call__(self, image):
        return self.transforms(image)


LOST = {
    "NumPy": lambda image: Image.fromarray(np.asarray(image)[:, ::-1]),
    "expand": lambda image: ImageOps.expand(image, 4),
    "a preset": Preset(),
    "a channel": lambda image: image.getchannel(0),
    "nothing": lambda image: None,
}


@pytest.mark.parametrize("name", LOST)
def test_steps_that_lose_the_box_are_refused_with_the_first_image(name):
    with pytest.raises(TransformError, match=r"transform: \S+ makes a \S+ of a PIL image in a way of its own"):
        follow(LOST[name])(photograph())


def in_place(image):
    ImageOps.exif_transpose(image, in_place=True)
    return image


def thumbnail(image):
    image.thumbnail((30, 30))
    return image


def pasted(image):
    image.paste(image.crop((0, 0, 20, 20)), (50, 50))
    return image


MOVED = {
    "rotate": lambda image: image.rotate(10),
    "quarter": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "affine": lambda image: v1_functional.affine(image, 0, [3, 3], 1.0, [0.0]),
    "perspective": lambda image: image.transform((8, 8), Image.Transform.PERSPECTIVE, (1, 0, 0, 0, 1, 0, 0, 0)),
    "exif_transpose": in_place,
    "thumbnail": thumbnail,
    "paste": pasted,
    "composite": lambda image: Image.composite(ImageOps.mirror(image), image, Image.new("L", image.size, 255)),
}


@pytest.mark.parametrize("name", MOVED)
def test_functions_that_turn_or_bend_or_work_in_place_are_refused(name):
    image = photograph()
    image.getexif()[0x0112] = 3
    with pytest.raises(TransformError, match=r"the crop's box cannot be followed"):
        follow(v1.Compose([nn.Identity(), MOVED[name]]))(image)


def test_drawing_on_the_image_is_fine():
    def cut_out(image):
        ImageDraw.Draw(image).rectangle((10, 10, 30, 30), fill=0)
        image.paste((0, 0, 0), (40, 40, 50, 60))
        return image

    assert follow_one(v1.Compose([v1.RandomHorizontalFlip(1.0), cut_out]), photograph(), 0).tolist() == [1, 0, 0, 1]
