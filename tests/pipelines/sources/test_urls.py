"""Sources behind URLs: what is read, what is tried again, and servers that say no or nothing."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from packing import pack_parquet, pack_tar
from pictures import paint
from webserver import serve

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources import ImagesSpec, bytesio, list_images
from labelstore.pipelines.sources.bytesio import read_all


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bytesio, "SECONDS", 0.5)
    monkeypatch.setattr(bytesio, "PAUSE", 0.01)
    root = tmp_path / "web"
    paint(root / "cats" / "1.png", "red")
    paint(root / "flaky" / "2.png", "blue")
    with serve(root) as server:
        yield server


def test_a_list_of_urls_and_a_list_behind_one(web):
    (web.root / "list.txt").write_text(f"cats/1.png\n{web.url}/flaky/2.png\n")
    listing = list_images(f"{web.url}/list.txt")
    assert listing.ids == ("cats/1.png", "flaky/2.png")
    assert listing.root == web.url
    for row, name in enumerate(listing.ids):
        assert listing.places[row].read() == (web.root / name).read_bytes()
    assert web.asked["/flaky/2.png"] == 2


def test_a_tar_file_behind_a_url_is_indexed_and_read_in_parts(web):
    images = {f"{number}.png": bytes([number]) * 300_000 for number in range(10)}
    pack_tar(web.root / "train-0.tar", images)
    listing = list_images(f"{web.url}/train-{{0..0}}.tar")
    assert [listing.places[row].read() for row in range(10)] == list(images.values())


def test_parquet_behind_a_url(web):
    pack_parquet(web.root / "a.parquet", {"x.png": b"x", "y.png": b"y"}, [0, 1])
    listing = list_images(f"{web.url}/a.parquet")
    assert (listing.ids, listing.places[1].read()) == (("x.png", "y.png"), b"y")


@pytest.mark.parametrize(
    ("path", "expected", "times"),
    [
        ("cats/none.png", r"^not found \(404\)$", 1),
        ("secret.png", "the server answers 403", 1),
        ("hang.png", r"^no answer in 0.5 s \(tried 3 times\)$", 3),
    ],
)
def test_what_cannot_be_had_says_why(web, path, expected, times):
    with pytest.raises(OSError) as caught:
        read_all(f"{web.url}/{path}")
    assert web.asked[f"/{path}"] == times
    assert re.search(expected, caught.value.strerror)


def test_a_server_that_is_not_there():
    with pytest.raises(OSError) as caught:
        read_all("http://127.0.0.1:9/x.png")
    assert "tried 3 times" in caught.value.strerror


@pytest.mark.parametrize("name", ["none.txt", "none.tar", "none.parquet", "hang.txt", "hang.tar", "hang.parquet"])
def test_a_source_that_cannot_be_had_ends_the_run_in_words(web, name):
    with pytest.raises(ImagesError, match=r"not found \(404\)|no answer in 0.5 s") as caught:
        list_images(f"{web.url}/{name}")
    assert f"{web.url}/{name}" in str(caught.value)


def test_protocols_that_are_unknown_or_need_a_package(monkeypatch):
    with pytest.raises(ImagesError, match="nosuch://bucket/list.txt: .*nosuch"):
        list_images("nosuch://bucket/list.txt")
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'labelstore\[gs\]'"):
        list_images(ImagesSpec(("gs://bucket/train.tar",)))


def test_a_folder_behind_any_file_system(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe({"/bucket/photos/n01/b.png": b"b", "/bucket/photos/n01/a.PNG": b"a", "/bucket/photos/notes.txt": b""})
    listing = list_images("memory://bucket/photos/")
    assert listing.ids == ("n01/a.PNG", "n01/b.png")
    assert listing.places[0].read() == b"a"
    system.pipe("/bucket/empty/notes.txt", b"")
    with pytest.raises(ImagesError, match=r"no images below this folder \(1 other files\)"):
        list_images("memory://bucket/empty")


@pytest.mark.parametrize(
    ("path", "expected", "times"),
    [
        ("cats/cut.png", r"^the answer is cut short \(tried 3 times\)$", 3),
        ("cats/stall.png", r"^no answer in 0.5 s \(tried 3 times\)$", 3),
    ],
)
def test_what_comes_in_part_only_is_asked_for_again_and_given_up(web, path, expected, times):
    paint(web.root / path, "red")
    with pytest.raises(OSError) as caught:
        read_all(f"{web.url}/{path}")
    assert web.asked[f"/{path}"] == times
    assert re.search(expected, caught.value.strerror)


def test_more_bytes_than_an_image_has_are_not_read(web):
    (web.root / "large.png").write_bytes(bytes(3_000_000))
    with pytest.raises(OSError, match=r"more bytes than the 1000000 that are expected at most"):
        read_all(f"{web.url}/large.png", most=1_000_000)
    assert web.asked["/large.png"] == 1
    with pytest.raises(OSError, match="3000000 bytes are too many, expected at most 1000000"):
        read_all(str(web.root / "large.png"), most=1_000_000)


def test_a_server_that_sends_whole_files_is_not_taken_for_one_that_sends_parts(web):
    (web.root / "whole.bin").write_bytes(bytes(range(100)))
    with pytest.raises(OSError, match="whole files only, no parts of them"):
        bytesio.read_part(f"{web.url}/whole.bin", 10, 20)
    (web.root / "parts.bin").write_bytes(bytes(range(100)))
    assert bytesio.read_part(f"{web.url}/parts.bin", 10, 20) == bytes(range(10, 30))
    assert bytesio.read_part(f"{web.url}/parts.bin", 10, 0) == b""


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_server_that_stalls_in_the_middle_of_a_file_ends_the_listing(web, kind):
    images = {f"{number}.png": bytes([number]) * 1000 for number in range(10)}
    (pack_tar if kind == "tar" else pack_parquet)(web.root / f"stall.{kind}", images)
    with pytest.raises(ImagesError, match=rf"stall\.{kind}: .*no answer in 0.5 s \(tried 3 times\)"):
        list_images(f"{web.url}/stall.{kind}")


def test_a_parquet_file_behind_a_url_whose_server_fails_later_fails_its_rows_and_is_tried_again(web):
    images = {f"{number}.png": random.Random(number).randbytes(20_000) for number in range(40)}
    file = pack_parquet(web.root / "a.parquet", images, rows_a_group=10)
    listing = list_images(f"{web.url}/a.parquet")
    assert listing.places[0].read() == images["0.png"]
    data = file.read_bytes()
    file.unlink()
    with pytest.raises(OSError, match="row group 1 cannot be read from row 0 on: .*404"):
        listing.places[12].read()
    file.write_bytes(data)
    assert listing.places[12].read() == images["12.png"]


def test_a_listing_may_take_longer_than_one_answer():
    from fsspec.asyn import AsyncFileSystem

    class Slow(AsyncFileSystem):
        async def _find(self, path):
            await asyncio.sleep(0.3)
            return [f"{path}/x.png"]

    assert bytesio.call(Slow(), "find", "bucket", seconds=60.0) == ["bucket/x.png"]
    with pytest.raises(TimeoutError):
        bytesio.call(Slow(), "find", "bucket", seconds=0.05)


def test_names_with_spaces_and_accents_behind_a_url(web):
    paint(web.root / "a b" / "café.png", "red")
    (web.root / "list.txt").write_text("a b/café.png\n", encoding="utf-8")
    listing = list_images(f"{web.url}/list.txt")
    assert listing.ids == ("a b/café.png",)
    assert listing.places[0].read() == (web.root / "a b" / "café.png").read_bytes()
