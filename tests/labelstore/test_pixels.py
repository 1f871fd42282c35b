"""Greyscale of more than 8 bits: refused, scaled or clipped, and the same pixels for annotating and for training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from labelstore import LabelMapReader
from labelstore.errors import ImageDecodeError, ImagesError
from labelstore.pipelines.images import decode_image
from labelstore.pixels import GREY16_RULES, ReadRules, is_deep, scaled, to_rgb
from labelstore.torch import ImageLoader, SoftLabelDataset, load_upright, loader_for

RAMP = np.tile(np.arange(0, 194, dtype=np.uint8), (6, 1))
PLAIN = v2.Compose([v2.Resize((16, 16)), v2.PILToTensor()])


def as_file(pixels: np.ndarray, name: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, Image.registered_extensions()[Path(name).suffix])
    return file.getvalue()


def pgm(pixels: np.ndarray, top: int) -> bytes:
    """A PGM file of two bytes a pixel whose highest value is stated."""
    height, width = pixels.shape
    return f"P5 {width} {height} {top}\n".encode() + pixels.astype(">u2").tobytes()


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """A TIFF file of 16 bits in the byte order that Pillow does not write."""
    height, width = pixels.shape
    entries = (
        *((256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 12 * 9 + 4)),
        *((277, 3, 1), (278, 3, height), (279, 4, pixels.size * 2)),
    )
    table = b"".join(
        tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big")
        + (value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big"))
        for tag, kind, value in entries
    )  # fmt: skip
    return b"MM\0*\0\0\0\x08" + len(entries).to_bytes(2, "big") + table + b"\0\0\0\0" + pixels.astype(">u2").tobytes()


DEEP = {
    "16-bit PNG": as_file(RAMP.astype(np.uint16) * 257, "a.png"),
    "16-bit TIFF": as_file(RAMP.astype(np.uint16) * 257, "a.tif"),
    "16-bit TIFF, big-endian": big_endian_tiff(RAMP.astype(np.uint16) * 257),
    "32-bit TIFF of 16-bit values": as_file(RAMP.astype(np.int32) * 257, "a.tif"),
    "16-bit PGM": pgm(RAMP.astype(np.uint16) * 257, 65535),
    "float TIFF from 0 to 1": as_file((RAMP / 255).astype(np.float32), "a.tif"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_pixels_of_more_than_8_bits_go_by_the_rule(kind, tmp_path):
    data = DEEP[kind]
    path = tmp_path / "a.img"
    path.write_bytes(data)
    np.testing.assert_array_equal(np.asarray(decode_image(data, ReadRules(grey16="scale")))[..., 1], RAMP)
    np.testing.assert_array_equal(np.asarray(decode_image(data, ReadRules(grey16="clip"))), np.asarray(default_loader(path)))
    with pytest.raises(ImageDecodeError, match=r"more than 8 bits \(Pillow's mode .*--grey16 scale"):
        decode_image(data, ReadRules(grey16="fail"))
    assert np.asarray(ImageLoader(ReadRules(grey16="scale"))(path)).tobytes() == np.repeat(RAMP[..., None], 3, axis=2).tobytes()
    with pytest.raises(ImageDecodeError, match="more than 8 bits"):
        ImageLoader(ReadRules(grey16="fail"))(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_files_of_16_are_recognised_by_the_brightest_pixel(bits):
    top = 2**bits - 1
    pixels = np.rint(np.linspace(0, top, 256)).astype(np.uint16)[None]
    np.testing.assert_array_equal(scaled(pixels)[0], np.arange(256), err_msg="the whole range is there")
    dim = np.rint(np.linspace(0, 0.6 * top, 100)).astype(np.uint16)[None]
    assert scaled(dim).max() == round(0.6 * 255)


def test_other_ranges_are_the_files_own():
    np.testing.assert_array_equal(scaled(np.array([[-1000, 0, 1000]], np.int32)), [[0, 128, 255]])
    np.testing.assert_array_equal(scaled(np.array([[0, 2**20, 2**21]], np.int32)), [[0, 128, 255]])
    np.testing.assert_array_equal(scaled(np.array([[-0.5, 0.25, 1.0]], np.float32)), [[0, 128, 255]])
    np.testing.assert_array_equal(scaled(np.array([[0.0, 0.5]], np.float32)), [[0, 128]])
    np.testing.assert_array_equal(scaled(np.full((2, 2), 70_000, np.int32)), np.zeros((2, 2)))
    for broken in (np.nan, np.inf, -np.inf):
        with pytest.raises(ImageDecodeError, match="finite"):
            scaled(np.array([[0.0, broken]], np.float32))


@given(st.sampled_from(["u2", "i4", "f4"]), st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_brighter_pixels_stay_brighter(dtype, values):
    pixels = np.array([values]).astype(dtype)
    made = scaled(pixels)[0].astype(int)
    assert (np.diff(made[np.argsort(pixels[0], kind="stable")]) >= 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_8_bits_are_what_image_folder_sees_whatever_the_rule(mode):
    image = Image.new("RGB", (4, 4), (10, 200, 30)).convert(mode)
    assert not is_deep(image.mode)
    for rule in GREY16_RULES:
        assert to_rgb(image, rule).tobytes() == image.convert("RGB").tobytes()


def test_channels_of_16_bits_in_colour_keep_their_high_bytes():
    """Pillow opens colour of 16 bits as 8 bits, and loses nothing that 8 bits can hold."""
    ramp = np.repeat((RAMP.astype(np.uint16) * 257)[..., None], 3, axis=2)
    height, width, _ = ramp.shape
    data = f"P6 {width} {height} 65535\n".encode() + ramp.astype(">u2").tobytes()
    np.testing.assert_array_equal(np.asarray(decode_image(data, ReadRules(grey16="fail")))[..., 0], RAMP)


def test_lab_is_what_image_folder_sees(tmp_path):
    Image.new("LAB", (4, 4), (120, 130, 140)).save(tmp_path / "a.tif")
    ours = decode_image((tmp_path / "a.tif").read_bytes(), ReadRules(grey16="fail"))
    assert ours.tobytes() == default_loader(str(tmp_path / "a.tif")).tobytes()


@pytest.fixture
def deep_folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in ("blue", "red"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(root / "red" / "plain.png")
    (root / "blue" / "deep.png").write_bytes(DEEP["16-bit PNG"])
    (root / "red" / "deep.tif").write_bytes(DEEP["32-bit TIFF of 16-bit values"])
    return root


def test_a_run_names_and_counts_them(deep_folder, make_store, tmp_path):
    summary = make_store(deep_folder)
    assert summary.info.grey16 == "fail"
    assert [image_id for image_id, _ in summary.failures] == ["blue/deep.png", "red/deep.tif"]
    assert all("--grey16 scale" in reason for _, reason in summary.failures)


def test_data_set_and_store_must_read_alike(deep_folder, make_store, tmp_path):
    readers = {}
    for rule in ("scale", "clip"):
        make_store(deep_folder, tmp_path / f"{rule}.zarr", grey16=rule)
        readers[rule] = LabelMapReader(tmp_path / f"{rule}.zarr")
        assert readers[rule].info.grey16 == rule
        assert (readers[rule].status() == 1).all()
    options = {"class_map": [4, 2]}
    plain = ImageFolder(str(deep_folder))
    with pytest.raises(ImagesError, match=r"--grey16 scale.*loader=labelstore.torch.loader_for"):
        SoftLabelDataset(plain, readers["scale"], PLAIN, **options)
    SoftLabelDataset(plain, readers["clip"], PLAIN, **options)
    scaling = ImageFolder(str(deep_folder), loader=loader_for(readers["scale"]))
    images = [image for image, _ in SoftLabelDataset(scaling, readers["scale"], PLAIN, **options)]
    assert 60 < images[0].float().mean() < 130, "no white picture"
    with pytest.raises(ImagesError, match="--grey16 clip, the loader's rule .* is 'scale'"):
        SoftLabelDataset(scaling, readers["clip"], PLAIN, **options)
    with pytest.raises(ImagesError, match="leave load_upright out"):
        SoftLabelDataset(ImageFolder(str(deep_folder), loader=load_upright), readers["clip"], PLAIN, **options)
