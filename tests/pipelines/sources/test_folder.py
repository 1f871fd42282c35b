"""A folder of images: which there are, in torchvision's ImageFolder's eyes too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import paint
from torchvision.datasets import ImageFolder

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, list_images


def test_ids_are_paths_below_the_root_in_byte_order(tmp_path):
    names = ["b.png", "B.png", "é/x.png", "z/x.png", "a/b/c/d/e/f.png", "a/b.png", "a.b/c.png", "漢字/🐈.png", "a b/c d.png"]
    for name in names:
        paint(tmp_path / name, "red", size=(2, 2))
    listing = list_images(tmp_path)
    assert listing.ids == tuple(sorted(names, key=str.encode))
    assert listing.root == str(tmp_path)


def test_extensions_of_any_case_and_nothing_else(tmp_path):
    for name in ("1.JPG", "2.JpEg", "3.png", "4.TIFF", "5.WebP", "6.gif", "7.pgm", "8.PPM", "9.bmp", "0.tif"):
        (tmp_path / name).touch()
    for name in ("notes.txt", "jpg", "x.jpg.bak", "x.npy", "README"):
        (tmp_path / name).touch()
    assert [image_id[0] for image_id in list_images(tmp_path).ids] == list("0123456789")


def test_a_folder_with_an_images_name_is_no_image(tmp_path):
    paint(tmp_path / "folder.png" / "y.png", "red", size=(2, 2))
    assert list_images(tmp_path).ids == ("folder.png/y.png",)


def test_hidden_images_are_left_out_and_counted_unless_they_are_asked_for(tmp_path):
    hidden = (".cache/x.png", "a/.ipynb_checkpoints/1-checkpoint.png", "a/._1.png", "__MACOSX/a/1.png")
    for name in ("a/1.png", *hidden):
        paint(tmp_path / name, "red", size=(2, 2))
    listing = list_images(tmp_path)
    assert listing.ids == ("a/1.png",)
    assert [note for note in listing.notes if note.startswith("4 hidden images were left out")]
    taken = list_images(ImagesSpec((str(tmp_path),), hidden=True))
    assert set(taken.ids) == {"a/1.png", *hidden}
    assert not taken.notes


def test_other_files_are_counted_by_extension(tmp_path):
    for name in ("a.png", "b.JFIF", "c.jpe", "d.tga"):
        (tmp_path / name).touch()
    for name in ("x.xcf", "y.xcf", "z.CR2", "README", ".hidden.xcf"):
        (tmp_path / name).touch()
    listing = list_images(tmp_path)
    assert listing.ids == ("a.png", "b.JFIF", "c.jpe", "d.tga")
    assert listing.notes == ("4 other files were not looked at: .xcf 2, .cr2 1, no extension 1",)
    (tmp_path / "y.xcf").unlink()
    for name in listing.ids:
        (tmp_path / name).unlink()
    with pytest.raises(ImagesError, match=r"no images below .*3 other files were not looked at"):
        list_images(tmp_path)


def test_a_name_that_is_no_utf8_is_a_failed_row_with_an_escaped_id(tmp_path, make_store):
    paint(tmp_path / "images" / "a" / "1.png", "red")
    odd = os.fsencode(tmp_path / "images" / "a") + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "images" / "a" / "1.png").read_bytes())
    summary = make_store(tmp_path / "images")
    assert summary.failures == (("a/caf\\xe9.png", "the file's name is not UTF-8: rename it, or no data set finds its row"),)
    assert summary.counts.done == 1


def test_classes_as_image_folder_has_them(tmp_path):
    for name in ("zebra", "Ant", "ant", "é", "e", "a b", "n02", "n01.x"):
        paint(tmp_path / name / "1.png", "red", size=(2, 2))
        paint(tmp_path / name / "deeper" / "down" / "2.JPG", "red", size=(2, 2))
    (tmp_path / "linked").symlink_to(tmp_path / "zebra")
    listing = list_images(tmp_path)
    theirs = ImageFolder(str(tmp_path))
    assert {name: number for number, name in enumerate(listing.target_names)} == theirs.class_to_idx
    expected = {Path(path).relative_to(tmp_path).as_posix(): target for path, target in theirs.samples}
    assert dict(zip(listing.ids, listing.targets.tolist(), strict=True)) == expected
    assert listing.targets.dtype == np.int32


def test_folders_are_no_labels_where_an_image_lies_beside_them(tmp_path):
    paint(tmp_path / "a" / "x.png", "red", size=(2, 2))
    paint(tmp_path / "top.png", "red", size=(2, 2))
    listing = list_images(tmp_path)
    assert listing.target_names is None
    assert listing.targets.tolist() == [-1, -1]


def test_links_to_folders_and_to_images_are_followed(tmp_path):
    elsewhere = paint(tmp_path / "elsewhere" / "x.png", "red", size=(2, 2)).parent
    root = tmp_path / "root"
    root.mkdir()
    (root / "one").symlink_to(elsewhere)
    (root / "two").symlink_to(elsewhere)
    (root / "three.png").symlink_to(elsewhere / "x.png")
    assert list_images(root).ids == ("one/x.png", "three.png", "two/x.png")


def test_links_back_into_their_own_folders_end(tmp_path):
    paint(tmp_path / "a" / "b" / "x.png", "red", size=(2, 2))
    (tmp_path / "a" / "root").symlink_to(tmp_path)
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "itself").symlink_to("itself")
    assert list_images(tmp_path).ids == ("a/b/x.png",)


def test_a_link_to_nothing_is_listed_so_that_it_is_reported(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.png").symlink_to("itself.png")
    assert list_images(tmp_path).ids == ("gone.png", "itself.png")


def test_a_file_without_an_images_name_may_be_called_anything(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).touch()
    paint(tmp_path / "x.png", "red", size=(2, 2))
    assert list_images(tmp_path).ids == ("x.png",)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "found nothing"),
        (lambda root: root.touch(), "found a file"),
        (lambda root: root.mkdir(), r"no images .*\(0 other files\)"),
        (lambda root: [root.mkdir(), (root / "notes.txt").touch()], r"no images .*\(1 other files\)"),
    ],
)
def test_where_there_are_no_images(tmp_path, make, expected):
    root = tmp_path / "photos"
    make(root)
    with pytest.raises(ImagesError, match=expected) as caught:
        list_images(root)
    assert str(root) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(ImagesError, match=r"locked: cannot be read: Permission denied"):
        list_images(tmp_path)


@pytest.mark.parametrize("name", ["photos", "photos/", "./photos//", "../here/photos"])
def test_a_folder_may_be_named_in_many_ways(tmp_path, monkeypatch, name):
    paint(tmp_path / "here" / "photos" / "a" / "x.png", "red", size=(2, 2))
    monkeypatch.chdir(tmp_path / "here")
    listing = list_images(name)
    assert listing.ids == ("a/x.png",)
    monkeypatch.chdir("/")
    assert listing.places[0].read()
