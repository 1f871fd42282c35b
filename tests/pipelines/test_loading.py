"""Images loaded ahead: in order, in the batches that are asked for, no more of them than is said, and no thread left behind."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from pictures import draw, paint
from PIL import Image
from toy_annotators import NAMES, PALETTE

from labelstore.pipelines import loading
from labelstore.pipelines.annotators import Preprocessing
from labelstore.pipelines.images import image_pixels
from labelstore.pipelines.loading import READ_AHEAD, LoadSpec, load_batches, load_image
from labelstore.pipelines.sources import FilePlace
from labelstore.pixels import AS_IMAGE_FOLDER

SMALL = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, "bilinear")
LARGE = Preprocessing(40, (0.5,) * 3, (0.5,) * 3, "bicubic")


@dataclass
class Counter:
    """Counts how many places have been read."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self) -> None:
        with self.lock:
            self.count += 1


@dataclass(frozen=True)
class CountedPlace:
    data: bytes
    counter: Counter

    def read(self) -> bytes:
        self.counter.add()
        return self.data


@dataclass(frozen=True)
class FailingPlace:
    error: BaseException

    def read(self) -> bytes:
        raise self.error


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    import io

    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def counted(count: int) -> tuple[list[CountedPlace], Counter]:
    counter = Counter()
    return [CountedPlace(encoded(draw(NAMES[row % 8], size=(8, 8))), counter) for row in range(count)], counter


def spec(ahead: int = 0, threads: int = 2, **more) -> LoadSpec:
    return LoadSpec((SMALL,), AS_IMAGE_FOLDER, threads, ahead, **more)


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("read", "decode"))]


def settled(counter: Counter) -> int:
    """How many places are read when no thread reads on."""
    before = -1
    while before != counter.count:
        before = counter.count
        threading.Event().wait(0.1)
    return before


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [0, 5])
@pytest.mark.parametrize("sizes", [[1] * 50, [7, 7, 7, 7, 7, 7, 7, 1], [50], [3, 40, 7], [20, 10]])
def test_batches_have_the_sizes_that_are_asked_for_and_the_order_of_their_places(sizes, ahead, threads):
    places, counter = counted(sum(sizes))
    batches = list(load_batches(places, sizes, spec(ahead, threads)))
    assert [len(batch) for batch in batches] == sizes
    images = [image for batch in batches for image in batch]
    for row, image in enumerate(images):
        np.testing.assert_array_equal(
            image.pixels[0][0, 0], np.array(PALETTE[NAMES[row % 8]]) * 255 if row % 8 != 3 else [0, 128, 0]
        )
    assert counter.count == sum(sizes)


@pytest.mark.parametrize("ahead", [0, 10, 100])
def test_no_more_is_read_ahead_than_is_said(ahead):
    places, counter = counted(500)
    batches = load_batches(places, [4] * 125, spec(ahead))
    assert counter.count == 0
    for taken in (4, 8, 12):
        next(batches)
        assert settled(counter) == taken + ahead + READ_AHEAD
    batches.close()


def test_nothing_is_decoded_ahead_unless_it_is_wanted(monkeypatch):
    decoded = Counter()

    def counting(*arguments):
        decoded.add()
        return image_pixels(*arguments)

    monkeypatch.setattr("labelstore.pipelines.loading.image_pixels", counting)
    for ahead in (0, 9):
        decoded.count = 0
        batches = load_batches(counted(100)[0], [4] * 25, spec(ahead))
        next(batches)
        assert settled(decoded) == 4 + ahead
        batches.close()


def test_an_image_is_made_into_every_input(tmp_path):
    file = paint(tmp_path / "x.png", "red", "blue")
    loaded = load_image(FilePlace(str(file)), LoadSpec((SMALL, LARGE), AS_IMAGE_FOLDER, 1))
    assert [part.shape for part in loaded.pixels] == [(16, 16, 3), (40, 40, 3)]
    assert (loaded.error, loaded.jpeg, loaded.crc32) == ("", None, zlib.crc32(file.read_bytes()))
    for part, expected in zip(loaded.pixels, image_pixels(file.read_bytes(), (SMALL, LARGE)), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_what_goes_wrong_becomes_the_images_error(tmp_path):
    good = counted(1)[0][0]
    broken = FilePlace(str(tmp_path / "broken.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    places = [
        good,
        FilePlace(str(tmp_path / "gone.png")),
        FailingPlace(OSError(5, "Input/output error")),
        FailingPlace(OSError("no number")),
        FailingPlace(MemoryError()),
        broken,
        good,
    ]
    images = next(load_batches(places, [7], spec()))
    assert [image.error.removesuffix(": expected JPEG, PNG, GIF, BMP, PPM, TIFF or WEBP") for image in images] == [
        "",
        "cannot be read: No such file or directory",
        "cannot be read: Input/output error",
        "cannot be read: no number",
        "cannot be read: out of memory",
        "cannot be decoded: cannot identify image file",
        "",
    ]
    assert [image.pixels is None for image in images] == [False, True, True, True, True, True, False]
    assert [image.crc32 for image in images[1:5]] == [0, 0, 0, 0]
    assert images[5].crc32 == zlib.crc32(b"no image")


def test_jpegs_are_handed_on_undecoded_where_that_is_wanted():
    jpeg, png = (CountedPlace(encoded(draw("red"), kind), Counter()) for kind in ("JPEG", "PNG"))
    first, second = next(load_batches([jpeg, png], [2], spec(keep_jpegs=True)))
    assert (first.jpeg, first.pixels, first.error, first.crc32) == (jpeg.data, None, "", zlib.crc32(jpeg.data))
    assert second.jpeg is None
    assert second.pixels is not None
    assert next(load_batches([jpeg], [1], spec()))[0].jpeg is None


@pytest.mark.parametrize("ahead", [0, 20])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_iterator_that_is_abandoned_leaves_no_threads(ahead, taken):
    places, counter = counted(300)
    batches = load_batches(places, [4] * 75, spec(ahead))
    for _ in range(taken):
        next(batches)
    batches.close()
    assert threads_of_ours() == []
    assert counter.count <= taken * 4 + ahead + READ_AHEAD


def test_no_threads_are_left_at_the_end_or_after_an_error():
    list(load_batches(counted(20)[0], [10, 10], spec(5)))
    assert threads_of_ours() == []
    places = [*counted(3)[0], FailingPlace(KeyError("a bug")), *counted(100)[0]]
    with pytest.raises(KeyError, match="a bug"):
        list(load_batches(places, [4] * 26, spec(5)))
    assert threads_of_ours() == []


@pytest.mark.parametrize("ahead", [0, 100])
def test_files_that_wait_to_be_decoded_are_no_more_bytes_than_is_said(ahead, monkeypatch):
    monkeypatch.setattr(loading, "MOST_HELD", 1)
    go_on, decoded = threading.Semaphore(0), Counter()

    def waiting(*arguments):
        go_on.acquire()
        decoded.add()
        return image_pixels(*arguments)

    monkeypatch.setattr(loading, "image_pixels", waiting)
    places, counter = counted(100)
    with ThreadPoolExecutor(1) as executor:
        batches = executor.submit(list, load_batches(places, [10] * 10, spec(ahead)))
        try:
            for expected in (0, 20, 40):
                assert settled(counter) <= expected + loading._READERS + 1
                assert decoded.count == expected
                go_on.release(20)
                settled(decoded)
        finally:
            go_on.release(100)
        assert [len(batch) for batch in batches.result()] == [10] * 10
    assert counter.count == 100


def test_readers_that_wait_for_room_let_go_when_the_iterator_is_abandoned(monkeypatch):
    monkeypatch.setattr(loading, "MOST_HELD", 1)
    batches = load_batches(counted(300)[0], [4] * 75, spec(100))
    next(batches)
    batches.close()
    assert threads_of_ours() == []


def test_an_image_that_the_device_decodes_has_the_size_that_its_head_says(tmp_path):
    good, cut, other = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.png"))
    draw("red", size=(30, 20)).save(good)
    cut.write_bytes(good.read_bytes()[:10])
    draw("red", size=(5, 9)).save(other)
    how = LoadSpec((SMALL,), AS_IMAGE_FOLDER, 1, keep_jpegs=True)
    loaded = [load_image(FilePlace(str(file)), how) for file in (good, cut, other)]
    assert [image.size for image in loaded] == [(30, 20), (0, 0), (5, 9)]
    assert [image.jpeg is None for image in loaded] == [False, False, True]
