"""What a user names as images: patterns, kinds, and the EXIF rule that goes with them."""

from __future__ import annotations

import pytest
from pictures import paint

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, list_images
from labelstore.pipelines.sources.spec import expand_braces


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train.tar", ["train.tar"]),
        ("train-{0008..0011}.tar", ["train-0008.tar", "train-0009.tar", "train-0010.tar", "train-0011.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("{a}", ["{a}"]),
        ("{}", ["{}"]),
        ("x{,y}", ["x", "xy"]),
    ],
)
def test_braces_stand_for_names_as_in_a_shell(pattern, expected):
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..1000000}",
        "{0..999}{0..999}{0..1}",
        "{a,b}" * 21,
        "{a,b}" * 5000,
        "{0..99999999999999999999}",
        "a" * 2000 + "{1..999999}",
    ],
)
def test_braces_that_stand_for_too_much_are_refused_before_any_is_made(pattern):
    with pytest.raises(ImagesError, match="expected braces that stand for at most 1,000,000 names"):
        expand_braces(f"train-{pattern}.tar")


def test_many_patterns_together_stand_for_no_more():
    with pytest.raises(ImagesError, match="in all"):
        list_images(ImagesSpec(tuple(f"{part}-{{0..400000}}.tar" for part in "abc")))
    with pytest.raises(ImagesError, match=r"x-399999\.tar: named twice"):
        list_images(ImagesSpec(("x-{0..399999}.tar", "x-399999.tar")))


def test_numbers_beyond_all_names_are_letters():
    assert expand_braces("{0.." + "9" * 5000 + "}") == ["{0.." + "9" * 5000 + "}"]
    assert expand_braces("{" + ",".join("ab" * 50_000) + "}.tar")[0] == "a.tar"


@pytest.mark.parametrize(
    ("locations", "kind"),
    [
        (("photos",), "folder"),
        (("list.txt",), "list"),
        (("LIST.CSV",), "list"),
        (("a.tar", "b.tar"), "tar"),
        (("s3://bucket/train-{0..9}.tar",), "tar"),
        (("https://host/a.parquet?token=1.2",), "parquet"),
        (("gs://bucket/photos",), "folder"),
    ],
)
def test_the_kind_is_read_off_the_name(locations, kind):
    assert ImagesSpec(locations).kind == kind


def test_a_folder_may_be_called_like_a_file(tmp_path):
    paint(tmp_path / "photos.tar" / "x.png", "red")
    assert list_images(tmp_path / "photos.tar").ids == ("x.png",)


def test_photographs_in_parquet_are_turned_upright_unless_told_otherwise():
    assert ImagesSpec(("a.parquet",)).exif == "apply"
    assert {ImagesSpec((name,)).exif for name in ("photos", "list.txt", "a.tar")} == {"ignore"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ImagesSpec(("a.tar", "b.parquet")), "expected one folder, one list, or any number"),
        (ImagesSpec(("one", "two")), "expected one folder, one list, or any number"),
        (ImagesSpec(("a.txt", "b.txt")), "expected one folder, one list, or any number"),
        (ImagesSpec(("a.tar.gz",)), "compressed tar file has no random access"),
        (ImagesSpec(("a.tgz",)), "compressed tar file has no random access"),
        (ImagesSpec(("no-such-*.tar",)), "no such files"),
        (ImagesSpec(("a.tar", "a.tar")), "a.tar: named twice"),
        (ImagesSpec(("photos",), root="/x"), "--images-root: not for a folder"),
        (ImagesSpec(("a.tar",), id_column="x", label_column="y"), "--id-column, --label-column: not for a tar"),
    ],
)
def test_what_does_not_go_together(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImagesError, match=message):
        list_images(spec)


def test_a_star_stands_for_the_files_that_are_there(tmp_path):
    from packing import pack_tar

    red = paint(tmp_path / "x.png", "red").read_bytes()
    for name in ("b", "a", "c"):
        pack_tar(tmp_path / f"part-{name}.tar", {f"{name}.png": red})
    listing = list_images(ImagesSpec((f"{tmp_path}/part-*.tar",)))
    assert listing.ids == ("a.png", "b.png", "c.png")
    assert listing.root == f"{tmp_path}/part-*.tar"
