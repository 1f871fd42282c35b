"""Photographs by id: from folders, web servers and packed files, and never from outside of the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from packing import pack_tar
from pictures import paint
from webserver import serve

from labelstore.errors import ImagesError
from labelstore.pipelines.photographs import Photographs, open_root
from labelstore.reader import LabelMapReader


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with pictures, beside what must not be served."""
    paint(tmp_path / "root" / "cats" / "1.png", "red")
    paint(tmp_path / "secret" / "2.png", "blue")
    (tmp_path / "root" / "out.png").symlink_to(tmp_path / "secret" / "2.png")
    (tmp_path / "root" / "away").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "inside.png").symlink_to(tmp_path / "root" / "cats" / "1.png")
    (tmp_path / "root" / "loop.png").symlink_to(tmp_path / "root" / "loop.png")
    os.mkfifo(tmp_path / "root" / "pipe.png")
    return tmp_path / "root"


def test_a_folder_here(root):
    found = open_root(str(root))
    data = (root / "cats" / "1.png").read_bytes()
    assert found.read("cats/1.png") == found.read("inside.png") == data
    stamp = found.stamp("cats/1.png")
    paint(root / "cats" / "1.png", "red", "green")
    assert found.stamp("cats/1.png") != stamp


@pytest.mark.parametrize(
    ("image_id", "said"),
    [
        ("out.png", "leads out of"),
        ("away/2.png", "leads out of"),
        ("../secret/2.png", "no '..'"),
        ("cats/../../secret/2.png", "no '..'"),
        ("cats/../cats/1.png", "no '..'"),
        ("/etc/passwd", "no '/' at its start"),
        ("", "expected a text"),
        ("cats/1.png\0", "NUL"),
        ("cats", "not a file"),
        ("pipe.png", "not a file"),
        ("loop.png", "not in"),
        ("cats/none.png", "--images"),
        ("x" * 5000, "not in"),
        ("\udc80.png", "expected UTF-8"),
    ],
)
def test_nothing_else_is_read_from_a_folder(root, image_id, said):
    for ask in (open_root(str(root)).read, open_root(str(root)).stamp):
        with pytest.raises(ImagesError) as caught:
            ask(image_id)
        assert said in str(caught.value)


def test_a_web_server(root):
    with serve(root) as server:
        found = open_root(f"{server.url}/")
        assert found.read("cats/1.png") == (root / "cats" / "1.png").read_bytes()
        assert found.stamp("cats/1.png") is None
        with pytest.raises(ImagesError, match="not found"):
            found.read("cats/none.png")
        asked = sum(server.asked.values())
        for image_id in ("../secret/2.png", "%2e%2e/secret/2.png", "..%5csecret", "%2Fetc", "/x.png", "a\0"):
            with pytest.raises(ImagesError):
                found.read(image_id)
        assert sum(server.asked.values()) == asked


def test_a_tar_file(root, tmp_path):
    data = (root / "cats" / "1.png").read_bytes()
    pack_tar(tmp_path / "b.tar", {"b/2.png": data})
    pack_tar(tmp_path / "a.tar", {"é/1.png": data[::-1], "b/1.png": data})
    found = open_root(f"{tmp_path / 'b.tar'}, {tmp_path / 'a.tar'}")
    assert found.read("b/1.png") == found.read("b/2.png") == data
    assert found.read("é/1.png") == data[::-1]
    for image_id in ("b/3.png", "", "\ud800"):
        with pytest.raises(ImagesError, match="not in"):
            found.read(image_id)


def test_the_root_is_the_stores_unless_told(picture_store, pictures, tmp_path):
    info = LabelMapReader(picture_store).info
    data = (pictures / "red" / "1.png").read_bytes()
    assert Photographs(info).root(0).read("red/1.png") == data
    with pytest.raises(ImagesError, match=f"{tmp_path}/gone: no such folder"):
        Photographs(info, f"{tmp_path}/gone").root(0)
