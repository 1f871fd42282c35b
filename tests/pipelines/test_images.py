"""What one image's bytes decode to."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from torchvision.datasets.folder import default_loader

from labelstore.errors import ImageDecodeError
from labelstore.pipelines.annotators import Preprocessing
from labelstore.pipelines.images import decode_image, image_pixels

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (19, 31, 4), np.uint8)
RGB = Image.fromarray(NOISE[..., :3].copy())
SHADES = tuple(Image.fromarray(NOISE[..., channel].copy()) for channel in range(4))
ORIENTATION = 0x0112


def palette_with_transparency() -> Image.Image:
    image = RGB.quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def frames() -> list[Image.Image]:
    return [RGB, Image.new("RGB", RGB.size, "lime"), Image.new("RGB", RGB.size, "blue")]


def save(name: str, image: Image.Image, **options: object) -> tuple[str, bytes]:
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
    return name, file.getvalue()


def files() -> dict[str, tuple[str, bytes]]:
    first, *others = frames()
    animated = {"save_all": True, "append_images": others, "duration": 50}
    sixteen = Image.fromarray((NOISE[..., 0].astype(np.uint16) << 8) | NOISE[..., 1])
    return {
        "RGB JPEG": save("a.jpg", RGB),
        "grayscale JPEG": save("a.jpg", SHADES[0]),
        "CMYK JPEG": save("a.jpg", Image.merge("CMYK", SHADES)),
        "progressive JPEG": save("a.jpeg", RGB, progressive=True),
        "RGB PNG": save("a.png", RGB),
        "RGBA PNG": save("a.png", Image.merge("RGBA", SHADES)),
        "LA PNG": save("a.png", Image.merge("LA", SHADES[:2])),
        "16-bit PNG": save("a.png", sixteen),
        "1-bit PNG": save("a.png", SHADES[0].convert("1")),
        "palette PNG": save("a.png", RGB.quantize(16)),
        "palette PNG with one transparent colour": save("a.png", RGB.quantize(16), transparency=3),
        "palette PNG with transparencies": save("a.png", palette_with_transparency()),
        "animated GIF": save("a.gif", first, **animated),
        "GIF with a transparent colour": save("a.gif", RGB.quantize(16), transparency=3),
        "animated WebP": save("a.webp", first, lossless=True, **animated),
        "WebP with alpha": save("a.webp", Image.merge("RGBA", SHADES), lossless=True),
        "animated PNG": save("a.png", first, **animated),
        "TIFF": save("a.tiff", RGB),
        "TIFF of several pages": save("a.tif", first, save_all=True, append_images=others),
        "16-bit TIFF": save("a.tif", sixteen),
        "float TIFF": save("a.tif", SHADES[0].convert("F")),
        "BMP": save("a.bmp", RGB),
        "PPM": save("a.ppm", RGB),
        "PGM": save("a.pgm", SHADES[0]),
        "a PNG named .jpg": ("a.jpg", save("a.png", RGB)[1]),
        "rotated JPEG": save("a.jpg", RGB, exif=turned(6)),
    }


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("kind", files())
def test_decodes_as_image_folder_does(kind, tmp_path):
    name, data = files()[kind]
    path = tmp_path / name
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = default_loader(str(path))
    ours = decode_image(data)
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("kind", ["animated GIF", "animated WebP", "animated PNG", "TIFF of several pages"])
def test_several_frames_are_there_and_the_first_is_taken(kind):
    _, data = files()[kind]
    with Image.open(io.BytesIO(data)) as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) == 3
    found = np.asarray(decode_image(data)).astype(int)
    assert np.abs(found - NOISE[..., :3]).mean() < 40  # a GIF's palette is no exact copy; the other frames are 100 away


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_ignored_as_image_folder_does_or_applied(orientation, tmp_path):
    path = tmp_path / "x.png"
    RGB.save(path, exif=turned(orientation))
    data = path.read_bytes()
    np.testing.assert_array_equal(np.asarray(decode_image(data)), np.asarray(default_loader(str(path))))
    np.testing.assert_array_equal(np.asarray(decode_image(data, "ignore")), NOISE[..., :3])
    np.testing.assert_array_equal(np.asarray(decode_image(data, "apply")), UPRIGHT[orientation](NOISE[..., :3]))


def test_broken_exif_does_not_lose_the_image():
    _, data = save("a.jpg", RGB, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage")
    for exif in ("ignore", "apply"):
        assert decode_image(data, exif).size == RGB.size


def huge_png() -> bytes:
    """A valid PNG header that announces 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    body = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", r"^the file is empty$"),
        (b"this is text", r"^cannot be decoded: cannot identify image file$"),
        (bytes(1000), r"^cannot be decoded: cannot identify image file$"),
        (save("a.jpg", RGB)[1][:400], r"^cannot be decoded: Truncated"),
        (save("a.jpg", RGB)[1][:-100], r"^cannot be decoded: .*truncated"),
        (save("a.png", RGB)[1][:1000], r"^cannot be decoded: .*(truncated|broken|incomplete)"),
        (save("a.gif", RGB)[1][:300], r"^cannot be decoded: "),
        (huge_png(), r"^cannot be decoded: .*1600000000 pixels"),
    ],
)
def test_what_is_no_whole_image_says_why(data, expected):
    with pytest.raises(ImageDecodeError, match=expected) as caught:
        decode_image(data)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["RGB JPEG", "palette PNG", "animated GIF", "animated WebP", "TIFF", "BMP", "CMYK JPEG"])
def test_damaged_bytes_give_pixels_or_a_reason_and_nothing_else(kind):
    _, data = files()[kind]
    dice = random.Random(kind)
    for _ in range(60):
        broken = bytearray(data[: dice.randrange(1, len(data) + 1)])
        for _ in range(dice.randrange(5)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            decode_image(bytes(broken), dice.choice(["ignore", "apply"]))
        except ImageDecodeError as error:
            assert str(error)


def test_threads_that_decode_leave_the_warnings_of_others_as_they_were():
    noisy = files()["palette PNG with transparencies"][1]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as executor:
        sizes = list(executor.map(lambda _: decode_image(noisy).size, range(400)))
    assert sizes == [RGB.size] * 400
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_whole_image_is_squashed_to_the_input_square(interpolation):
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (60, 0, 90, 30))
    how = Preprocessing(30, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), interpolation)
    (pixels,) = image_pixels(save("a.png", image)[1], (how,), "ignore")
    assert (pixels.shape, pixels.dtype) == ((30, 30, 3), np.uint8)
    assert (pixels[:, :16] == (255, 0, 0)).all()  # two thirds of the width, not of a centre crop
    assert (pixels[:, 24:] == (0, 0, 255)).all()
    np.testing.assert_array_equal(pixels, np.asarray(image.resize((30, 30), Image.Resampling[interpolation.upper()])))
