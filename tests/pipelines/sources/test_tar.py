"""Tar files as WebDataset writes them."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from packing import pack_tar
from pictures import paint

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, list_images
from labelstore.pipelines.sources import tar as tars


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def picture(tmp_path):
    return paint(tmp_path / "picture.png", "red").read_bytes()


def test_members_are_read_where_they_lie(tmp_path, picture):
    pack_tar(tmp_path / "b.tar", {"./0003.png": picture + b"3", "0003.cls": b"7", "0003.json": b"{}"})
    pack_tar(tmp_path / "a.tar", {"0002.jpg": b"2", "0002.cls": b"1\n", "0001.png": b"", "long/" * 30 + "0004.png": b"4"})
    listing = list_images(ImagesSpec((f"{tmp_path}/{{b,a}}.tar",)))
    assert listing.ids == ("0001.png", "0002.jpg", "0003.png", "long/" * 30 + "0004.png")
    assert [listing.places[row].read() for row in range(4)] == [b"", b"2", picture + b"3", b"4"]
    assert (listing.targets.tolist(), listing.target_names) == ([-1, 1, 7, -1], None)
    assert listing.root == f"{tmp_path}/{{b,a}}.tar"
    assert str(listing.places[2]).startswith(f"{tmp_path}/b.tar: 0003.png (at byte ")


def test_folders_in_a_tar_file_are_labels(tmp_path, picture):
    file = pack_tar(tmp_path / "a.tar", {"n02/1.png": picture, "n01/1.png": picture})
    assert (list_images(file).targets.tolist(), list_images(file).target_names) == ([0, 1], ("n01", "n02"))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_formats_of_tar_and_what_is_no_image_in_them(tmp_path, picture, kind):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(picture)
    (tmp_path / "photos" / "link.png").symlink_to("1.png")
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as tar:
        tar.add(tmp_path / "photos", "photos")
    listing = list_images(tmp_path / "x.tar")
    assert listing.ids == ("photos/1.png",)
    assert listing.places[0].read() == picture


def test_a_second_name_of_a_file_is_an_image_too(tmp_path, picture):
    (tmp_path / "1.png").write_bytes(picture)
    (tmp_path / "2.png").hardlink_to(tmp_path / "1.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("1.png", "2.png"):
            tar.add(tmp_path / name, f"./{name}")
    listing = list_images(tmp_path / "x.tar")
    assert listing.ids == ("1.png", "2.png")
    assert [place.read() for place in listing.part(range(2))] == [picture, picture]


def test_an_index_is_made_once_and_again_when_the_file_changes(tmp_path, picture, monkeypatch, cache):
    file = pack_tar(tmp_path / "a.tar", {"1.png": picture})
    scanned = []
    scan = tars._scan
    monkeypatch.setattr(tars, "_scan", lambda *arguments: scanned.append(arguments[0]) or scan(*arguments))
    first = list_images(file)
    again = list_images(file)
    assert (scanned, first.ids) == ([str(file)], again.ids)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert again.places[0].read() == picture
    pack_tar(file, {"2.png": picture})
    assert list_images(file).ids == ("2.png",)
    assert len(scanned) == 2
    for kept in cache.rglob("*.npz"):
        kept.write_bytes(b"broken")
    assert list_images(file).ids == ("2.png",)
    assert len(scanned) == 3


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, picture, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    assert list_images(pack_tar(tmp_path / "a.tar", {"1.png": picture})).ids == ("1.png",)


def test_a_name_in_two_files_names_both(tmp_path, picture):
    for name in ("a", "b"):
        pack_tar(tmp_path / f"{name}.tar", {"0.png": picture, "same.png": picture} if name == "a" else {"same.png": picture})
    with pytest.raises(ImagesError, match=r"two .* 'same\.png': .*a\.tar: same\.png .* and .*b\.tar: same\.png"):
        list_images(ImagesSpec((f"{tmp_path}/a.tar", f"{tmp_path}/b.tar")))


def test_tar_files_that_are_cut_or_none_at_all(tmp_path):
    whole = pack_tar(tmp_path / "whole.tar", {"1.png": bytes(5000), "2.png": bytes(5000)}).read_bytes()
    for length, message in (
        (7000, r"cut short: 2\.png should end at byte 11\d+, the file ends at 7000"),
        (512 + 5120 + 100, "cut short: it ends at byte 5732 without a tar file's end mark"),
        (512 + 5120, "cut short: it ends at byte 5632 without a tar file's end mark"),
        (3000, r"cut short: 1\.png should end at byte 5512"),
        (0, "no whole tar file: "),
        (100, "no whole tar file: "),
    ):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(ImagesError, match=message) as caught:
            list_images(tmp_path / "cut.tar")
        assert str(tmp_path / "cut.tar") in str(caught.value)
    (tmp_path / "damaged.tar").write_bytes(whole[:5632] + b"x" * 512 + whole[6144:])
    with pytest.raises(ImagesError, match="damaged: expected a member's header at byte 5632"):
        list_images(tmp_path / "damaged.tar")
    (tmp_path / "text.tar").write_text("no tar file" * 1000)
    with pytest.raises(ImagesError, match="no whole tar file"):
        list_images(tmp_path / "text.tar")
    with pytest.raises(ImagesError, match="No such file"):
        list_images(tmp_path / "none.tar")
    with pytest.raises(ImagesError, match="no images in these 1 tar files"):
        list_images(pack_tar(tmp_path / "empty.tar", {"notes.txt": b"notes"}))


def test_a_file_that_shrank_after_it_was_listed_fails_its_row(tmp_path, picture):
    file = pack_tar(tmp_path / "a.tar", {"1.png": picture})
    place = list_images(file).places[0]
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(OSError, match=r"cut short: expected \d+ bytes at 512, got 88"):
        place.read()


def test_hidden_members_are_left_out_and_others_are_counted(tmp_path, picture):
    names = ("a/1.png", "a/._1.png", "__MACOSX/a/1.png", ".cache/2.png")
    members = dict.fromkeys(names, picture) | {"a/1.json": b"{}", "a/2.xbm": b"x", "a/3.svg": b"x"}
    file = pack_tar(tmp_path / "a.tar", members)
    for _ in range(2):  # the second time by the index that was kept
        listing = list_images(file)
        assert listing.ids == ("a/1.png",)
        assert listing.notes[0].startswith("3 hidden images were left out")
        assert listing.notes[1] == "2 other files were not looked at: .svg 1, .xbm 1"
    assert len(list_images(ImagesSpec((str(file),), hidden=True)).ids) == 4


def test_a_members_name_that_is_no_utf8_is_a_failed_row(tmp_path, picture, make_store):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("b.png", "caf\udce9.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture)
            tar.addfile(member, io.BytesIO(picture))
    for number in range(2):
        summary = make_store(tmp_path / "a.tar", tmp_path / f"{number}.zarr")
        assert [image_id for image_id, _ in summary.failures] == ["caf\\xe9.png"]
        assert summary.counts.done == 1
