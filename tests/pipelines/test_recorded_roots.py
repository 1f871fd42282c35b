"""Where a store says that its images lie: followed here, within bounds; never to another machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from folders import edit_attributes
from packing import pack_tar
from pictures import paint
from runs import SERIAL
from webserver import serve

from labelstore.errors import ImageDecodeError, ImagesError
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.photographs import Photographs, open_recorded_root
from labelstore.pipelines.recorded_roots import recorded_listing, recorded_spec
from labelstore.pipelines.resampling import sample_again
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sources import spec
from labelstore.reader import LabelMapReader


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with pictures, one of which is a link out of it."""
    paint(tmp_path / "root" / "cats" / "1.png", "red")
    paint(tmp_path / "secret" / "2.png", "blue")
    (tmp_path / "root" / "cats" / "out.png").symlink_to(tmp_path / "secret" / "2.png")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1:9/secret", "nothing is fetched"),
        ("s3://bucket/photos", "nothing is fetched"),
        ("file:///etc", "nothing is fetched"),
        ("/data/a.tar, http://127.0.0.1:9/b.tar", "nothing is fetched"),
        ("http://127.0.0.1:9/{0..9}.tar", "nothing is fetched"),
        ("/data/list.txt", "a list may name any file"),
        ("/data/list.csv", "a list may name any file"),
        ("/", "a system folder"),
        ("/data/..", "a system folder"),
        ("/proc/self", "a system folder"),
        ("/sys", "a system folder"),
        ("/dev/fd", "a system folder"),
        ("/net/host/share", "a system folder"),
        ("/net/host/{0..9}.tar", "a system folder"),
        ("/{data,net}/host/*.tar", "a system folder"),
        ("/data/**/*.tar", "'**'"),
        ("/data/{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}.tar", "expected braces that stand for at most"),
        ("/data/x\0y", "NUL"),
    ],
)
def test_roots_that_are_not_followed_without_being_named(location, said):
    for ask in (recorded_spec, recorded_listing, open_recorded_root):
        with pytest.raises(ImagesError) as caught:
            ask(location)
        assert said in str(caught.value)
        assert "--images" in str(caught.value) or "braces" in said or "braces" in str(caught.value)


def test_a_link_to_a_system_folder_is_one(tmp_path):
    (tmp_path / "photos").symlink_to("/proc/self")
    with pytest.raises(ImagesError, match="a system folder"):
        open_recorded_root(str(tmp_path / "photos"))


@pytest.mark.parametrize("location", ["x" * 300, "/data/" + "y" * 5000, ", ".join(f"/data/{n}.tar" for n in range(2000))])
def test_long_names_are_no_crash(location):
    with pytest.raises(ImagesError):
        open_recorded_root(location).read("a.png")


def test_a_root_of_many_files_is_looked_at_a_few_times_a_file(monkeypatch):
    looked = []
    monkeypatch.setattr(spec, "is_folder", lambda name: bool(looked.append(name)))
    with pytest.raises(ImagesError):
        open_recorded_root(", ".join(f"/data/{n}.tar" for n in range(200)))
    assert 200 <= len(looked) <= 2000


def test_roots_here_are_followed(root, tmp_path):
    data = (root / "cats" / "1.png").read_bytes()
    assert open_recorded_root(str(root)).read("cats/1.png") == data
    pack_tar(tmp_path / "0.tar", {"a.png": data})
    pack_tar(tmp_path / "1.tar", {"b.png": data})
    for pattern in (f"{tmp_path}/{{0..1}}.tar", f"{tmp_path}/*.tar", f"{tmp_path}/0.tar, {tmp_path}/1.tar"):
        assert open_recorded_root(pattern).read("b.png") == data
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ImagesError, match="not a file"):
        open_recorded_root(f"{tmp_path}/pipe.tar").read("b.png")


def test_links_that_lead_out_of_a_recorded_folder_are_not_read(root):
    listing = recorded_listing(str(root))
    found = dict(zip(listing.ids, listing.part(range(2)), strict=True))
    assert found["cats/1.png"].read() == (root / "cats" / "1.png").read_bytes()
    with pytest.raises(ImageDecodeError, match="leads out of"):
        found["cats/out.png"].read()


@pytest.fixture
def elsewhere(root, tmp_path):
    """A store that says that its images lie on a server, and the server."""
    store = str(tmp_path / "labels.zarr")
    annotate(root, store, Settings(model="toy_annotators:colours", top_k=3), SERIAL, Observer())
    with serve(root) as server:
        edit_attributes(Path(store), lambda attributes: attributes.update(images_root=server.url))
        yield store, server


def test_no_server_is_asked_that_only_a_store_names(elsewhere):
    store, server = elsewhere
    info = LabelMapReader(store).info
    with pytest.raises(ImagesError, match=f"--images {server.url}"):
        Photographs(info).root(0).read("cats/1.png")
    with pytest.raises(ImagesError, match=f"--images {server.url}"):
        sample_again(store, None, 1, SERIAL, ("toy_annotators:colours",))
    assert not server.asked
    assert Photographs(info, server.url).root(0).read("cats/1.png")
    assert server.asked
