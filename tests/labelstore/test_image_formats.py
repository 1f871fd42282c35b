"""Images by their extensions and by their bytes: what Pillow decodes is taken, what only looks like an image is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from labelstore.errors import ImageDecodeError
from labelstore.image_formats import extensions, formats, is_image_name, is_tga
from labelstore.pipelines.images import decode_image

PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (12, 20, 3), np.uint8)).resize((80, 48))


def as_file(name: str, **options: object) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, name, **options)
    return file.getvalue()


def test_what_this_machine_decodes_is_an_image():
    assert {"JPEG", "PNG", "TGA", "AVIF", "JPEG2000", "HEIF"} <= set(formats()), "the test environment has all of them"
    for name in ("a.jfif", "b.JPE", "c.avif", "d.jp2", "e.tga", "f.HEIC", "g.jpg"):
        assert is_image_name(name)
    for name in ("a.xcf", "jpg", "a.jpg.bak", "a.svg"):
        assert not is_image_name(name)
    assert len(set(extensions())) == len(extensions())


@pytest.mark.parametrize(
    ("name", "options", "near"),
    [
        ("TGA", {}, 0),
        ("TGA", {"compression": "tga_rle"}, 0),
        ("JPEG2000", {}, 0),
        ("AVIF", {"quality": 95}, 12),
        ("HEIF", {"quality": 95}, 12),
    ],
)
def test_more_formats_are_decoded(name, options, near):
    formats()  # registers the plug-in
    found = np.asarray(decode_image(as_file(name, **options))).astype(int)
    assert np.abs(found - np.asarray(PICTURE).astype(int)).mean() <= near


def test_noise_and_texts_are_no_tga():
    rng = np.random.default_rng(0)
    taken = 0
    for length in (0, 5, 18, 19, 300, 5000):
        for _ in range(300):
            data = rng.integers(0, 256, length, np.uint8).tobytes()
            taken += is_tga(data)
    assert taken <= 2, "five bytes must fit, and the length"
    for text in (
        b"<!DOCTYPE html><html><body>" * 20,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        b'{"a": 1}' * 9,
    ):
        assert not is_tga(text)
        with pytest.raises(ImageDecodeError, match="no image|cannot identify"):
            decode_image(text)


def test_a_cut_tga_is_said():
    data = as_file("TGA")[: 48 * 80]
    assert not is_tga(data)
    with pytest.raises(ImageDecodeError, match="cannot identify"):
        decode_image(data)


def test_hungry_decoders_get_half_of_the_pixels():
    """A header alone says so much: nothing is decoded."""
    data = bytearray(as_file("JPEG2000", no_jp2=True))
    at = data.index(b"\xff\x51") + 6  # SIZ: the size of the reference grid
    for start in (at, at + 4):
        data[start : start + 4] = (10_000).to_bytes(4, "big")
    with pytest.raises(ImageDecodeError, match="too many: expected at most 89478485"):
        decode_image(bytes(data))
