"""What one image's bytes decode to."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import time
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
from labelstore.pipelines.image_memory import Room
from labelstore.pipelines.images import decode_image, image_pixels
from labelstore.pixels import GREY16_RULES, ReadRules

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (19, 31, 4), np.uint8)
RGB = Image.fromarray(NOISE[..., :3].copy())
SHADES = tuple(Image.fromarray(NOISE[..., channel].copy()) for channel in range(4))
ORIENTATION = 0x0112
SMALL = Preprocessing(30, (0.0,) * 3, (1.0,) * 3, "bilinear")


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
    np.testing.assert_array_equal(np.asarray(decode_image(data, ReadRules("ignore"))), NOISE[..., :3])
    np.testing.assert_array_equal(np.asarray(decode_image(data, ReadRules("apply"))), UPRIGHT[orientation](NOISE[..., :3]))


def test_broken_exif_does_not_lose_the_image():
    _, data = save("a.jpg", RGB, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage")
    for exif in ("ignore", "apply"):
        assert decode_image(data, ReadRules(exif)).size == RGB.size


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
            decode_image(bytes(broken), ReadRules(dice.choice(["ignore", "apply"]), dice.choice(GREY16_RULES)))
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
    (pixels,) = image_pixels(save("a.png", image)[1], (how,))
    assert (pixels.shape, pixels.dtype) == ((30, 30, 3), np.uint8)
    assert (pixels[:, :16] == (255, 0, 0)).all()  # two thirds of the width, not of a centre crop
    assert (pixels[:, 24:] == (0, 0, 255)).all()


# Bombs, and images that are merely large


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(width: int, height: int, *more: bytes) -> bytes:
    """A whole PNG file with one bit a pixel; ``more`` are chunks between header and pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(1)
    row = bytes(1 + -(-width // 8))
    rows = b"".join(packer.compress(row * 100) for _ in range(height // 100))
    rows += packer.compress(row * (height % 100)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def renamed_size(kind: str, old: bytes, new: bytes, **options: object) -> bytes:
    """A file of 31 x 19 pixels that says that it has others."""
    data = save(kind, RGB, **options)[1]
    assert data.count(old) == 1
    return data.replace(old, new)


def tiff(width: int, height: int, *more: tuple[int, int]) -> bytes:
    """A grey TIFF file of that size with nothing in it; ``more`` are tags and their values."""
    entries = sorted([(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1), *more])
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)).ljust(300, b"\0") + zlib.compress(bytes(100))


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return header + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x01\x44\0;"


BOMBS = {
    "PNG": lambda: huge_png(),
    "JPEG": lambda: renamed_size("a.jpg", struct.pack(">HH", 19, 31), struct.pack(">HH", 65_500, 65_500)),
    "BMP": lambda: renamed_size("a.bmp", struct.pack("<ii", 31, 19), struct.pack("<ii", 60_000, 60_000)),
    "PPM": lambda: b"P6 60000 60000 255\n" + bytes(1000),
    "GIF": lambda: gif((65_535, 65_535), (9, 9)),
    "GIF of a frame that is larger than its screen": lambda: gif((9, 9), (65_535, 65_535)),
    "TIFF": lambda: tiff(60_000, 60_000, (273, 300), (279, 20)),
    "TIFF of one pixel in a large tile": lambda: tiff(1, 1, (322, 40_000), (323, 40_000), (324, 300), (325, 20)),
    "WebP": lambda: (
        b"RIFF" + struct.pack("<I", 22 + 100) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff\x3f\0" * 2 + bytes(100)
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_by_their_headers(kind):
    with pytest.raises(ImageDecodeError, match=r"pixels"):
        image_pixels(BOMBS[kind](), (SMALL,))


def test_a_whole_image_of_400_million_pixels_is_refused():
    data = black_png(20_000, 20_000)
    assert len(data) < 10**6
    with pytest.raises(ImageDecodeError, match="400000000 pixels"):
        image_pixels(data, (SMALL,))


def test_pillows_limit_may_be_lifted_and_ours_stays(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageDecodeError, match=r"20000 x 20000 pixels are too many: expected at most 178956970"):
        image_pixels(black_png(20_000, 20_000), (SMALL,))


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 65_536), (200_000, 10)])
def test_an_image_with_too_long_a_side_is_refused(width, height):
    with pytest.raises(ImageDecodeError, match=f"{width} x {height} pixels are too many: expected sides of at most 65535"):
        image_pixels(black_png(width, height), (SMALL,))


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535), (65_535, 100), (100, 65_535)])
def test_a_narrow_image_is_resized(size):
    (pixels,) = image_pixels(black_png(*size), (SMALL,))
    assert pixels.shape == (30, 30, 3)
    assert not pixels.any()


def test_a_tall_image_whose_rows_would_be_widened_beyond_the_limit_is_refused():
    wide = Preprocessing(8192, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
    with pytest.raises(ImageDecodeError, match="1 x 60000 pixels are too many"):
        image_pixels(black_png(1, 60_000), (wide,))


def test_texts_and_colour_profiles_that_are_bombs_are_refused():
    bomb = zlib.compress(bytes(200_000_000), 9)
    with pytest.raises(ImageDecodeError, match="too large"):
        decode_image(black_png(40, 30, chunk(b"zTXt", b"Comment\0\0" + bomb)))
    with pytest.raises(ImageDecodeError, match="too large"):
        decode_image(black_png(40, 30, chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb)))
    with pytest.raises(ImageDecodeError, match="too large"):
        decode_image(black_png(40, 30, chunk(b"iCCP", b"profile\0\0" + bomb)))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "cannot identify image file"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>\n<html></html>", "it is a web page, no image"),
        (b"<html><body>404", "it is a web page, no image"),
    ],
)
def test_what_is_no_image_is_not_run_as_a_program_and_named(data, expected):
    with pytest.raises(ImageDecodeError, match=expected):
        decode_image(data)


def test_there_is_room_for_so_many_pixels_at_a_time():
    room, lock, inside, most = Room(10), threading.Lock(), [0], []

    def take(count: int) -> None:
        with room.for_pixels(count):
            with lock:
                inside[0] += count
                most.append(inside[0])
            time.sleep(0.001)
            with lock:
                inside[0] -= count

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(take, [1, 10, 4, 6, 5, 5, 9, 2] * 10))
    assert len(most) == 80
    assert max(most) == 10


# Memory


LARGEST = """
import resource, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from labelstore.pipelines.annotators import Preprocessing
from labelstore.pipelines.images import image_pixels
from labelstore.pipelines.resources import keep_the_heap
from labelstore.pixels import ReadRules

keep_the_heap()
how = (Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic"),)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
files = [Path(name).read_bytes() for name in sys.argv[1:]]
before = peak()
with ThreadPoolExecutor(4) as executor:
    for (pixels,) in executor.map(lambda data: image_pixels(data, how, ReadRules("apply", "scale")), files):
        assert pixels.shape == (224, 224, 3)
print(peak() - before)
"""
"""Decodes files by four threads at once, and prints by how many bytes the process grew at most."""


def large(side: int, mode: str) -> Image.Image:
    grey = Image.linear_gradient("L").resize((side, side), Image.Resampling.NEAREST)
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    return Image.merge(mode, [grey] * len(mode)) if len(mode) > 1 else grey.convert(mode)


KINDS = {
    "rgb.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "cmyk.jpg": ("CMYK", {"progressive": True}),
    "rgba.png": ("RGBA", {"compress_level": 1, "exif": turned(6)}),
    "sixteen.png": ("I;16", {"compress_level": 1}),
    "float.tif": ("F", {"compression": "tiff_lzw"}),
    "rgba.webp": ("RGBA", {"method": 0, "quality": 10}),
    "p.gif": ("P", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("side", "names"), [(13_200, list(KINDS)), (4_090, [name for name in KINDS for _ in range(4)])])
def test_images_as_large_as_are_accepted_take_no_more_than_the_stated_bound(side, names, tmp_path):
    for name in set(names):
        mode, options = KINDS[name]
        large(side, mode).save(tmp_path / name, **options)
    done = subprocess.run(
        [sys.executable, "-c", LARGEST, *(tmp_path / name for name in names)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3 * 10**9
