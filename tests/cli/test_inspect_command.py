"""`labelstore inspect`: one image's soft labels and map, in a terminal, as JSON, as a picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run_here, run_installed
from folders import edit_attributes
from pictures import draw, paint
from PIL import Image
from webserver import serve

from labelstore import LabelMapReader
from labelstore.pipelines.sources import ImagesSpec

TWO = "blue/0.png"  # left half blue, right half yellow


def inspect(store, *arguments):
    return run_here("inspect", *arguments, "--store", store)


def one_error(shown, code: int) -> str:
    """The one message of a command that failed."""
    assert (shown.code, shown.out) == (code, "")
    assert [line[:7] for line in shown.err.splitlines()].count("Error: ") == 1
    return shown.message.split("Error: ", 1)[1]


def first_classes(text: str) -> list[str]:
    """The best class of every soft label that is shown, from left to right."""
    line = next(line for line in text.splitlines() if line.startswith("1 "))
    words = line.split()
    return [words[place + 1] for place, word in enumerate(words) if word == "1"]


# In a terminal


def test_the_installed_command_shows_labels_and_map(picture_store):
    shown = run_installed("inspect", TWO, "--store", picture_store)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == "blue/0.png: row 0 of 21, 7x7 locations"
    assert lines[1].startswith("whole image")
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in shown.out  # a pipe gets no colours
    grid = [line.split() for line in lines if len(line.split()) == 7 and set(line.split()) <= set("ABCDEFGH·")]
    assert len(grid) == 7
    assert {cells[0] for cells in grid} != {cells[6] for cells in grid}
    legend = lines[next(place for place, line in enumerate(lines) if "best class" in line) :]
    assert any("blue" in line for line in legend)
    assert any("yellow" in line for line in legend)


def test_a_box_is_pooled_beside_the_whole_image(picture_store):
    assert first_classes(inspect(picture_store, TWO, "--box", "0,0,0.5,1").out)[1] == "blue"
    assert first_classes(inspect(picture_store, TWO, "--box", "0.5,0,1,1").out)[1] == "yellow"
    shown = inspect(picture_store, TWO, "--box", "0.5,0,1,1").out
    assert "box 0.5,0,1,1" in shown
    assert "[ ]: within the box" in shown


def test_a_mirrored_box_and_one_that_reaches_outside(picture_store):
    assert first_classes(inspect(picture_store, TWO, "--box", "0.5,1,0,0").out)[1] == "blue"
    assert first_classes(inspect(picture_store, TWO, "--box", "-0.5,-1,0.4,2").out)[1] == "blue"


def test_fewer_and_more_classes(picture_store):
    assert "2 " not in [line[:2] for line in inspect(picture_store, TWO, "--top", "1").out.splitlines()]
    shown = inspect(picture_store, TWO, "--top", "100")
    assert shown.code == 0
    assert "8 " in [line[:2] for line in shown.out.splitlines()]


def test_the_default_store_is_the_one_that_annotate_makes(picture_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "labels.zarr: no store here" in one_error(run_here("inspect", TWO), 1)
    shutil.copytree(picture_store, "labels.zarr")
    assert run_here("inspect", TWO).code == 0


@pytest.mark.parametrize("name", ["a b.c/d e.PNG", "é/漢字.png", "[x]/:cat:.png", ".hidden/x.png"])
def test_strange_names_are_found(make_store, tmp_path, name):
    path = paint(tmp_path / "x.png", "red")
    (tmp_path / "images" / name).parent.mkdir(parents=True)
    path.rename(tmp_path / "images" / name)
    make_store(ImagesSpec((str(tmp_path / "images"),), hidden=True))
    shown = run_here("inspect", name, "--store", tmp_path / "labels.zarr", "--save", tmp_path / "map.png")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"{name}: row 0 of 1")
    assert first_classes(shown.out) == ["red"]


# As JSON


def test_json_has_the_labels_and_the_map(picture_store):
    said = json.loads(inspect(picture_store, TWO, "--box", "0.5,0,1,1", "--top", "8", "--json").out)
    reader = LabelMapReader(picture_store)
    assert said["image_id"] == TWO
    assert said["box"] == [0.5, 0, 1, 1]
    for key, box in (("whole", (0, 0, 1, 1)), ("boxed", (0.5, 0, 1, 1))):
        soft = reader.pool([TWO], [box])[0]
        assert sum(entry["probability"] for entry in said[key]) == pytest.approx(1, abs=1e-4)
        probabilities = [entry["probability"] for entry in said[key]]
        assert probabilities == sorted(probabilities, reverse=True)
        for entry in said[key]:
            assert entry["probability"] == pytest.approx(soft[entry["class"]], abs=1e-5)
            assert entry["name"] == reader.class_names[entry["class"]]
            assert entry["id"] == f"colour-{entry['name']}"
    assert said["boxed"][0]["name"] == "yellow"
    one = reader[TWO]
    np.testing.assert_array_equal(said["map"]["classes"], one.classes)
    np.testing.assert_allclose(said["map"]["scores"], one.scores, atol=1e-4)


def test_json_alone_on_stdout_even_when_a_picture_is_saved(picture_store, tmp_path):
    shown = inspect(picture_store, TWO, "--json", "--save", tmp_path / "x.png")
    assert "boxed" not in json.loads(shown.out)
    assert shown.err == f"Saved {tmp_path / 'x.png'}\n"


# As a picture


def test_save_draws_the_photograph_found_by_the_recorded_root(picture_store, tmp_path):
    shown = inspect(picture_store, TWO, "--save", tmp_path / "map.png")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1] == f"Saved {tmp_path / 'map.png'}"
    with Image.open(tmp_path / "map.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def moved(make_store, tmp_path: Path) -> Path:
    """A store whose images have gone to another folder."""
    paint(tmp_path / "images" / "a" / "x.png", "red")
    make_store(tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "moved")
    return tmp_path / "labels.zarr"


def test_photographs_that_moved_are_asked_for_and_found(make_store, tmp_path):
    store = moved(make_store, tmp_path)
    shown = inspect(store, "a/x.png", "--save", tmp_path / "map.png")
    assert shown.code == 1
    assert f"{tmp_path}/images: no such folder; where the photographs lie now: --images FOLDER" in shown.message
    (tmp_path / "images").mkdir()
    shown = inspect(store, "a/x.png", "--save", tmp_path / "map.png")
    assert f"a/x.png: not in {tmp_path}/images: No such file or directory" in shown.message
    assert not (tmp_path / "map.png").exists()
    assert inspect(store, "a/x.png", "--save", tmp_path / "map.png", "--images", tmp_path / "moved").code == 0
    assert (tmp_path / "map.png").exists()


def test_a_photograph_behind_an_address_that_only_the_store_names_is_not_fetched(make_store, tmp_path):
    paint(tmp_path / "images" / "a" / "x.png", "red")
    make_store(tmp_path / "images")
    with serve(tmp_path / "images") as server:
        edit_attributes(tmp_path / "labels.zarr", lambda attributes: attributes.update(images_root=server.url))
        shown = inspect(tmp_path / "labels.zarr", "a/x.png", "--save", tmp_path / "map.png")
        assert (shown.code, f"--images {server.url}" in shown.message, server.asked) == (1, True, {})
        named = inspect(tmp_path / "labels.zarr", "a/x.png", "--save", tmp_path / "map.png", "--images", server.url)
        assert (named.code, len(server.asked)) == (0, 1)


def test_a_photograph_that_broke_since(make_store, tmp_path):
    store = moved(make_store, tmp_path)
    (tmp_path / "moved" / "a" / "x.png").write_text("no image")
    shown = inspect(store, "a/x.png", "--save", tmp_path / "map.png", "--images", tmp_path / "moved")
    assert shown.code == 1
    assert "a/x.png: cannot be decoded" in shown.message


def test_a_photograph_is_drawn_as_it_was_annotated(make_store, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    draw("red", "blue", (400, 200)).save(tmp_path / "images" / "x.png", exif=exif)
    sizes = {}
    for rule in ("ignore", "apply"):
        make_store(tmp_path / "images", tmp_path / f"{rule}.zarr", exif=rule)
        assert inspect(tmp_path / f"{rule}.zarr", "x.png", "--save", tmp_path / f"{rule}.png").code == 0
        with Image.open(tmp_path / f"{rule}.png") as picture:
            sizes[rule] = picture.size
    assert sizes["ignore"] != sizes["apply"]


@pytest.mark.parametrize("name", ["map.xyz", "map", "no such folder/map.png"])
def test_a_picture_that_cannot_be_saved_is_told_in_words(picture_store, tmp_path, name):
    shown = inspect(picture_store, TWO, "--save", tmp_path / name)
    assert shown.code in (1, 2)
    assert name in shown.message
    assert "Error: " in shown.err


# What does not fit


@pytest.mark.parametrize(
    "box", ["a,b", "", "0,0,1", "0,0,1,1,1", "nan,0,1,1", "0,0,inf,1", "0,0,0,1", "0,0.5,1,0.5", "2,2,3,3"]
)
def test_a_malformed_box_is_wrong_usage(picture_store, box):
    message = one_error(inspect(picture_store, TWO, "--box", box), 2)
    assert "'--box'" in message
    assert "expected" in message
    assert "fractions of the image's width and height" in message


def test_an_unknown_id_suggests_those_like_it(picture_store):
    message = one_error(inspect(picture_store, "blue/7.png"), 1)
    assert "no image id 'blue/7.png' among 21" in message
    assert "'blue/" in message.split("similar: ")[1]
    assert "'red/3.png'" in one_error(inspect(picture_store, "3.png"), 1)


@pytest.mark.parametrize("image_id", ["", "x" * 5000, "a\x1b[31mb", "../blue/0.png", "blue/0.png/", "0"])
def test_ids_that_cannot_be(picture_store, image_id):
    assert "no image id" in one_error(inspect(picture_store, image_id), 1)


def test_a_failed_image_says_why(make_store, tmp_path):
    paint(tmp_path / "images" / "good.png", "red")
    (tmp_path / "images" / "bad.png").touch()
    make_store(tmp_path / "images")
    message = one_error(inspect(tmp_path / "labels.zarr", "bad.png"), 1)
    assert "bad.png" in message
    assert "the file is empty" in message


def test_a_pending_image_says_so(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    (store / "commits" / "c.0.0.0").unlink()
    message = one_error(inspect(store, TWO), 1)
    assert TWO in message
    assert "annotate" in message


def test_a_damaged_map_is_never_shown(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    file = store / "classes" / "c.0.0.0.0"
    data = bytearray(file.read_bytes())
    data[20] ^= 255
    file.write_bytes(bytes(data))
    messages = [inspect(store, f"blue/{number}.png") for number in range(4)]
    assert sorted({shown.code for shown in messages}) == [0, 1]
    assert all("damaged" in shown.message for shown in messages if shown.code)


@pytest.mark.parametrize("store", ["nowhere.zarr", "notes.txt", "folder"])
def test_a_path_that_is_no_store(tmp_path, store):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    assert store in one_error(inspect(tmp_path / store, TWO), 1)
