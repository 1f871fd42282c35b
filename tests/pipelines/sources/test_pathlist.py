"""Lists of images: text files and tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import paint

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, list_images


@pytest.fixture
def photos(tmp_path):
    for name in ("cats/1.png", "cats/2.png", "dogs/1.png"):
        paint(tmp_path / name, "red")
    return tmp_path


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_paths_are_relative_to_the_list_and_become_the_ids(photos):
    listing = list_images(written(photos, "list.txt", "dogs/1.png\r\n\ncats/2.png\n./cats/1.png\n"))
    assert listing.ids == ("cats/1.png", "cats/2.png", "dogs/1.png")
    assert (listing.targets.tolist(), listing.target_names) == ([0, 0, 1], ("cats", "dogs"))
    assert listing.root == str(photos)
    assert listing.places[2].read() == (photos / "dogs/1.png").read_bytes()


def test_absolute_paths_and_a_root_elsewhere(photos, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    list_file = written(lists, "list.txt", f"{photos}/cats/1.png\ncats/2.png\n/elsewhere/3.png\n")
    listing = list_images(ImagesSpec((str(list_file),), root=str(photos)))
    assert listing.ids == ("cats/1.png", "cats/2.png", "elsewhere/3.png")
    assert listing.places[0].read()
    with pytest.raises(FileNotFoundError):
        listing.places[2].read()


def test_a_table_with_ids_and_labels_in_words(photos):
    table = "label,path,id,size\ndog,dogs/1.png,z9,1\ncat,cats/2.png,a1,2\n,cats/1.png,m5,3\n"
    listing = list_images(written(photos, "list.csv", table))
    assert listing.ids == ("a1", "m5", "z9")
    assert (listing.targets.tolist(), listing.target_names) == ([0, -1, 1], ("cat", "dog"))
    assert listing.places[2].location.endswith("dogs/1.png")


def test_a_table_with_labels_in_numbers_and_columns_of_other_names(photos):
    table = "\ufeffwhere\tclass number\ndogs/1.png\t7\ncats/2.png\t0\n"
    file = photos / "list.tsv"
    file.write_text(table, encoding="utf-8")
    listing = list_images(ImagesSpec((str(file),), image_column="where", label_column="class number"))
    assert listing.ids == ("cats/2.png", "dogs/1.png")
    assert (listing.targets.tolist(), listing.target_names) == ([0, 7], None)
    assert listing.targets.dtype == np.int32


def test_names_with_commas_quotes_and_spaces(photos):
    paint(photos / 'a, "b" c.png', "red")
    listing = list_images(written(photos, "list.csv", 'file\n"a, ""b"" c.png"\n'))
    assert listing.places[0].read()
    listing = list_images(written(photos, "list.txt", 'a, "b" c.png\n'))
    assert listing.places[0].read()


def test_spaces_and_both_ways_to_write_an_accent_are_kept_as_they_are(photos):
    names = [" a b .png", "caf\u00e9.png", "cafe\u0301.png", "漢字.png"]
    for name in names:
        paint(photos / name, "red")
    listing = list_images(written(photos, "list.txt", "\ufeff" + "\r\n".join(names)))
    assert listing.ids == tuple(sorted(names, key=str.encode))
    assert all(place.read() for place in listing.part(range(4)))
    table = "file,label\r\n" + "".join(f'"{name}",1\r\n' for name in names)
    listing = list_images(written(photos, "list.csv", "\ufeff" + table))
    assert len(listing.ids) == 4
    assert all(place.read() for place in listing.part(range(4)))


def test_a_relative_root_and_a_list_in_the_current_folder(photos, monkeypatch):
    monkeypatch.chdir(photos)
    written(photos, "list.txt", "1.png\n./2.png\n")
    listing = list_images(ImagesSpec(("list.txt",), root="cats/"))
    assert (listing.root, listing.ids) == (str(photos / "cats"), ("1.png", "2.png"))
    monkeypatch.chdir("/")
    assert all(place.read() for place in listing.part(range(2)))


def test_numbers_with_gaps_stay_numbers(photos):
    table = "path,label\ncats/1.png,7\ncats/2.png,\ndogs/1.png,3\n"
    listing = list_images(written(photos, "list.csv", table))
    assert (listing.targets.tolist(), listing.target_names) == ([7, -1, 3], None)


def test_a_folder_in_a_list_leaves_no_file_open(photos):
    listing = list_images(written(photos, "list.txt", "cats\ndogs\n"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(OSError, match="not a file"):
            listing.places[0].read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "", "an empty list"),
        ("list.txt", "\n \n", "an empty list"),
        ("list.csv", "", r"expected a header with a column 'path' or .*found nothing"),
        (
            "list.csv",
            "picture,label\nx.png,1\n",
            r"expected a header with a column 'path' .*found picture, label",
        ),
        ("list.csv", "path,label\nx.png,1\ny.png\n", r"line 3: expected 2 fields as in the header, got 1"),
        ("list.csv", "path,label\n", "an empty list"),
        ("list.csv", 'path,label\n"a\nb.png",1\ny.png\n', r"line 4: expected 2 fields as in the header, got 1"),
        ("list.csv", 'path,label\na.png,1\n" ",1\n', r"line 3: expected a path in column 'path', got none"),
        ("list.csv", 'path,label\na.png,"' + "x" * 200_000, r"line 2: no CSV: field larger than field limit"),
        ("list.txt", "a.png\nnosuch://x/b.png\n", r"nosuch://x/b\.png: Protocol not known"),
        ("list.txt", "a.png\n../b.png\n", r"image id '\.\./b\.png': expected no '\.\.' in it"),
        ("list.csv", "path,label\na.png,-7\nb.png,1\n", "labels: expected whole numbers from 0, got -7 to 1"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, name, text, message):
    with pytest.raises(ImagesError, match=message):
        list_images(written(tmp_path, name, text))


def test_an_id_that_two_images_have_names_both_places(photos):
    with pytest.raises(ImagesError) as caught:
        list_images(written(photos, "list.csv", "path,id\ncats/1.png,same\ndogs/1.png,same\n"))
    assert f"two images have the id 'same': {photos}/cats/1.png and {photos}/dogs/1.png" in str(caught.value)
    with pytest.raises(ImagesError, match=r"two images have the id 'cats/1\.png'"):
        list_images(written(photos, "list.txt", "cats/1.png\n./cats/1.png\n"))


def test_a_list_that_is_no_text_missing_or_a_pipe(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\xff.png\n")
    with pytest.raises(ImagesError, match="expected UTF-8 text: invalid start byte at byte 1"):
        list_images(tmp_path / "list.txt")
    with pytest.raises(ImagesError, match=r"none\.txt: cannot be read: No such file"):
        list_images(tmp_path / "none.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ImagesError, match="not a file"):
        list_images(tmp_path / "pipe.txt")
