"""JPEG files decoded by the device's decoder: near Pillow's pixels, and Pillow where it refuses."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image
from runs import SERIAL

from labelstore import LabelMapReader
from labelstore.errors import OptionError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.annotators import Preprocessing
from labelstore.pipelines.cluster import Resources
from labelstore.pipelines.device_decode import decode_on_device
from labelstore.pipelines.images import image_pixels, is_plain_jpeg
from labelstore.pipelines.loading import LoadedImage
from labelstore.pipelines.maps import to_pixels
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


class Wants:
    """What decoding needs of annotators: a device, and inputs."""

    def __init__(self, device: str = "cpu", *interpolations: str) -> None:
        self.device = torch.device(device)
        kinds = interpolations or INTERPOLATIONS
        self.inputs = tuple(Preprocessing(24 + 8 * at, (0.5,) * 3, (0.5,) * 3, kind) for at, kind in enumerate(kinds))


def photo(size: tuple[int, int] = (90, 60), mode: str = "RGB") -> Image.Image:
    """Soft colours, as photographs have them."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def far_from_pillow(data: bytes, wants: Wants, found: list[torch.Tensor]) -> float:
    """The largest mean difference of pixels over the inputs."""
    expected = image_pixels(data, wants.inputs)
    assert [tuple(part.shape) for part in found] == [part.shape for part in expected]
    assert {(part.dtype, part.device.type) for part in found} == {(torch.uint8, wants.device.type)}
    return max(float(np.abs(got.cpu().numpy().astype(float) - want).mean()) for got, want in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_pixels_are_near_pillows(device):
    kinds = {
        "plain": jpeg(photo()),
        "tall": jpeg(photo((50, 130))),
        "upscaled": jpeg(photo((11, 9))),
        "grey": jpeg(photo(mode="L")),
        "progressive": jpeg(photo(), progressive=True),
        "full chroma": jpeg(photo(), subsampling=0),
    }
    wants = Wants(device)
    for (kind, data), found in zip(kinds.items(), decode_on_device(list(kinds.values()), wants), strict=True):
        assert is_plain_jpeg(data), kind
        assert far_from_pillow(data, wants, found) < 3, kind


def test_nearest_takes_the_pixels_that_pillow_takes():
    wants = Wants("cpu", "nearest")
    data = jpeg(photo((100, 70)), subsampling=0)
    assert far_from_pillow(data, wants, decode_on_device([data], wants)[0]) < 0.5


def unreadable() -> dict[str, bytes]:
    whole = jpeg(photo((200, 200)))
    return {
        "cut short": whole[:-400],
        "no end": whole[:-2],
        "head alone": whole[:50],
        "three bytes": b"\xff\xd8\xff",
        "text": b"\xff\xd8\xff" + b"no image",
    }


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_what_is_no_plain_jpeg_is_left_to_pillow_and_spoils_no_neighbour(device):
    wants = Wants(device, "bilinear")
    good, odd = jpeg(photo()), jpeg(photo(mode="CMYK"))
    files = [good, odd, *unreadable().values(), good]
    found = decode_on_device(files, wants)
    assert far_from_pillow(good, wants, found[0]) < 3
    assert far_from_pillow(good, wants, found[-1]) < 3
    assert far_from_pillow(odd, wants, found[1]) == 0
    for (name, data), got in zip(unreadable().items(), found[2:-1], strict=True):
        assert not is_plain_jpeg(data)
        if name != "no end":
            assert isinstance(got, str), name
            assert got.startswith("cannot be decoded: "), name


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_file_that_the_decoder_refuses_has_pillows_reason(device):
    data = bytearray(jpeg(photo()))
    at = data.index(b"\xff\xc0")  # the frame's header: 12 bits a sample, which hardly anybody reads
    data[at + 4] = 12
    found = decode_on_device([jpeg(photo()), bytes(data)], Wants(device, "bilinear"))
    assert not isinstance(found[0], str)
    assert isinstance(found[1], str)
    assert found[1].startswith("cannot be decoded: ")


def test_the_size_is_looked_at_before_anything_is_decoded():
    data = bytearray(jpeg(photo()))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    assert not is_plain_jpeg(bytes(data))
    assert decode_on_device([bytes(data)], Wants())[0].startswith("cannot be decoded: Image size (3600000000 pixels) exceeds")


def test_no_files_at_all():
    assert decode_on_device([], Wants()) == []


def test_jpegs_take_their_places_among_other_images():
    wants = Wants("cpu", "bilinear")
    data, pixels = jpeg(photo()), image_pixels(jpeg(draw("blue")), wants.inputs)
    images = [
        LoadedImage(pixels, 1),
        LoadedImage(None, 2, jpeg=data),
        LoadedImage(None, 3, "cannot be read"),
        LoadedImage(None, 4, jpeg=data[:-300]),
    ]
    (stacked,), reasons = to_pixels(images, wants)
    np.testing.assert_array_equal(stacked[0], pixels[0])
    assert far_from_pillow(data, wants, [stacked[1]]) < 3
    assert not stacked[2:].any()
    assert reasons[:3] == ["", "", ""]
    assert reasons[3].startswith("cannot be decoded: ")


# Through annotate


NVJPEG = Settings("toy_annotators:colours", top_k=3, encoding="topk", decoder="nvjpeg")


def test_a_device_without_nvjpeg_is_refused(pictures, tmp_path):
    with pytest.raises(OptionError, match="--decoder nvjpeg needs --device cuda, this run is on the CPU; use --decoder pillow"):
        annotate(pictures, str(tmp_path / "s.zarr"), NVJPEG, SERIAL, Observer())
    assert not (tmp_path / "s.zarr").exists()


def test_photographs_cannot_be_turned_upright_by_it(pictures, tmp_path):
    settings = Settings("toy_annotators:colours", decoder="nvjpeg", exif="apply")
    with pytest.raises(OptionError, match="turns no photographs upright: --exif ignore, or --decoder pillow"):
        annotate(pictures, str(tmp_path / "s.zarr"), settings, SERIAL, Observer())


@pytest.mark.gpu
def test_a_run_on_a_gpu_gives_pillows_labels_nearly(tmp_path):
    (tmp_path / "images").mkdir()
    for number, colours in enumerate((("red", "blue"), ("green", None), ("cyan", "magenta"))):
        draw(*colours).save(tmp_path / "images" / f"{number}.jpg", quality=95)
    (tmp_path / "images" / "9.jpg").write_bytes(jpeg(draw("red"))[:-30])
    gpu = Resources(workers=0, device="cuda", threads=1, decode_threads=2, batch_size=4)
    stores = [str(tmp_path / name) for name in ("nvjpeg.zarr", "pillow.zarr")]
    settings = NVJPEG, Settings("toy_annotators:colours", top_k=3, encoding="topk")
    for store, how in zip(stores, settings, strict=True):
        assert annotate(tmp_path / "images", store, how, gpu, Observer()).counts.failed == 1
    one, other = map(LabelMapReader, stores)
    assert (one.info.decoder, other.info.decoder) == ("nvjpeg", "pillow")
    boxes = [(0.0, 0.0, 0.5, 1.0)] * 3
    np.testing.assert_allclose(one.pool([0, 1, 2], boxes), other.pool([0, 1, 2], boxes), atol=0.1)
    (tmp_path / "nvjpeg.zarr" / "commits" / "c.0.0.0").unlink()
    with pytest.raises(OptionError, match="--decoder nvjpeg needs --device cuda"):
        annotate(tmp_path / "images", stores[0], Settings(), SERIAL, Observer())
