"""How often labels of whole images are the images' own: counted by hand on small stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run_here
from folders import edit_attributes
from pictures import paint
from toy_annotators import NAMES, PALETTE

from labelstore import LabelMapReader
from labelstore.agreement import Agreement, label_agreement
from labelstore.boxes import WHOLE_IMAGE
from labelstore.class_map import match_classes
from labelstore.errors import ClassMatchError
from labelstore.own_labels import own_labels
from labelstore.survey import Survey

FOLDERS = {
    "names": dict(zip(NAMES, NAMES, strict=True)),
    "ids": {name: f"colour-{name}" for name in NAMES},
    "numbers": {name: str(number) for number, name in enumerate(NAMES)},
}


def make_images(root: Path, folder_of: dict[str, str]) -> Path:
    """Ten pictures: seven in their colour's folder, red in black's, cyan in yellow's, and one in a folder of no class."""
    right = ("red", "green", "blue", "yellow", "cyan", "magenta", "white")
    for name in right:
        paint(root / folder_of[name] / f"{name}.png", "lime" if name == "green" else name)  # CSS's green is darker
    paint(root / folder_of["black"] / "wrong.png", "red")
    paint(root / folder_of["yellow"] / "wrong.png", "cyan")
    paint(root / "no class" / "x.png", "red")
    return root


def by_hand(store: Path, labels: dict[str, str]) -> Agreement:
    """The same by sorting the soft labels of whole images; for images without ties."""
    reader = LabelMapReader(store)
    first = best = 0
    for image_id, label in labels.items():
        soft = reader.pool([image_id], [(0, 0, 1, 1)])[0]
        order = np.argsort(-soft, kind="stable")
        place = order.tolist().index(NAMES.index(label))
        first, best = first + (place == 0), best + (place < 5)
    return Agreement(first / len(labels), best / len(labels), len(labels))


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_may_be_named_by_ids_names_or_numbers(make_store, tmp_path, kind):
    images = make_images(tmp_path / "images", FOLDERS[kind])
    summary = make_store(images, top_k=8)
    own = {name: name for name in ("red", "green", "blue", "yellow", "cyan", "magenta", "white")}
    labels = {f"{FOLDERS[kind][name]}/{name}.png": name for name in own}
    labels |= {f"{FOLDERS[kind][name]}/wrong.png": name for name in ("black", "yellow")}
    expected = by_hand(tmp_path / "labels.zarr", labels)
    assert expected.top1 == pytest.approx(7 / 9)
    assert expected.top5 == pytest.approx(8 / 9)  # from red black is one step away as two others are; from cyan four are nearer
    assert summary.agreement == label_agreement(LabelMapReader(tmp_path / "labels.zarr")) == expected


def test_folders_that_are_no_classes_have_no_agreement(make_store, pictures, tmp_path):
    for name in ("cats", "dogs"):
        paint(tmp_path / "images" / name / "x.png", "red")
    assert make_store(tmp_path / "images").agreement is None
    paint(tmp_path / "flat" / "red.png", "red")
    assert make_store(tmp_path / "flat", tmp_path / "flat.zarr").agreement is None
    assert label_agreement(LabelMapReader(tmp_path / "flat.zarr")) is None


def test_a_class_that_maps_do_not_keep_is_among_no_best_five(make_store, tmp_path):
    for number in range(4):
        paint(tmp_path / "images" / "cyan" / f"{number}.png", "red")  # cyan is the farthest colour from red
    assert make_store(tmp_path / "images", top_k=1).agreement == Agreement(0.0, 0.0, 4)
    assert make_store(tmp_path / "images", tmp_path / "all.zarr", top_k=8).agreement == Agreement(0.0, 0.0, 4)


def test_only_rows_that_are_done_count_and_only_those_of_the_run(make_store, tmp_path):
    for name in ("red", "blue"):
        for number in range(4):
            paint(tmp_path / "images" / name / f"{number}.png", name)
    (tmp_path / "images" / "red" / "3.png").write_bytes(b"broken")
    assert make_store(tmp_path / "images").agreement == Agreement(1.0, 1.0, 7)
    (tmp_path / "labels.zarr" / "commits" / "c.1.0.0").unlink()
    assert label_agreement(LabelMapReader(tmp_path / "labels.zarr")) == Agreement(1.0, 1.0, 4)
    assert make_store(tmp_path / "images").agreement == Agreement(1.0, 1.0, 3)
    assert make_store(tmp_path / "images").agreement is None  # nothing was made


def test_a_sample_is_spread_over_the_rows(make_store, tmp_path):
    for number in range(20):
        paint(tmp_path / "images" / "red" / f"{number:02}.png", "red" if number < 10 else "blue")
    make_store(tmp_path / "images")
    reader = LabelMapReader(tmp_path / "labels.zarr")
    assert label_agreement(reader, most=4) == Agreement(0.5, label_agreement(reader).top5, 4)
    assert label_agreement(reader, np.arange(10)) == Agreement(1.0, 1.0, 10)
    assert label_agreement(reader, np.arange(0)) is None


def change(store: Path, **values: object) -> LabelMapReader:
    edit_attributes(store, lambda attributes: attributes.update(values))
    return LabelMapReader(store)


def test_classes_of_labels(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    info = LabelMapReader(store).info
    assert own_labels(info).classes.tolist() == [NAMES.index(name) for name in ("blue", "green", "red")]
    info = change(store, target_names=["blue", "pink", "red"]).info
    assert own_labels(info).classes.tolist() == [NAMES.index("blue"), -1, NAMES.index("red")]
    info = change(store, target_names=["0", "7", "8"]).info
    assert own_labels(info).classes.tolist() == [0, 7, -1]
    info = change(store, target_names=None).info  # labels in numbers
    assert own_labels(info).classes.tolist() == list(range(8))
    info = change(store, target_names=["blue", "red"], class_ids=None, class_names=["red", "red", *NAMES[2:]]).info
    assert own_labels(info).classes.tolist() == [NAMES.index("blue"), -1]  # which red?
    info = change(store, class_ids=None, class_names=None).info
    assert own_labels(info) is None


def test_labels_in_numbers_are_class_numbers(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    assert label_agreement(LabelMapReader(store)).images == 21
    reader = change(store, target_names=None)  # so blue's folder is 0, black; green's is 1, white; red's is 2, red
    found = label_agreement(reader)
    assert found.images == 21
    assert found.top1 <= 1 / 3


# With a class map


def test_a_class_map_says_which_classes_labels_are(make_store, tmp_path):
    for name, colour in (("sky", "blue"), ("grass", "lime"), ("sea", "cyan"), ("blue", "blue")):
        paint(tmp_path / "images" / name / "x.png", colour)
    make_store(tmp_path / "images", top_k=8)
    reader = LabelMapReader(tmp_path / "labels.zarr")
    assert label_agreement(reader) == Agreement(1.0, 1.0, 1)  # of blue alone
    found = label_agreement(reader, class_map={"grass": "green", "sea": "red"})
    assert (found.top1, found.images) == (pytest.approx(2 / 3), 3)
    assert label_agreement(reader, class_map={"blue": None, "grass": ["green", "yellow"]}) == Agreement(1.0, 1.0, 1)
    (tmp_path / "map.csv").write_text("label,class\ngrass,green\n")
    assert label_agreement(reader, class_map=tmp_path / "map.csv") == Agreement(1.0, 1.0, 2)
    for wrong, words in (
        ({"gras": "green"}, r"none of its labels \('gras', ...\) is one of the images' \('blue', 'grass'"),
        ({"grass": "gren"}, r"'gren' \(similar: 'green'"),
        ({"grass": ["green", "blue"]}, r"one for several: 4 \(colour-blue, blue\)"),  # blue is found by its name
    ):
        with pytest.raises(ClassMatchError, match=words):
            label_agreement(reader, class_map=wrong)


def test_probabilities_of_a_labels_classes_are_added(make_store, tmp_path):
    paint(tmp_path / "images" / "warm" / "x.png", "red", "yellow")
    paint(tmp_path / "images" / "cold" / "x.png", "red", "yellow")
    make_store(tmp_path / "images", top_k=8)
    reader = LabelMapReader(tmp_path / "labels.zarr")
    chosen = {"warm": ["yellow", "red"], "cold": ["blue", "cyan", "green"]}
    assert label_agreement(reader, class_map=chosen).top1 == 0.5
    survey = Survey(reader, chosen)
    survey.add(reader, np.arange(2))
    soft = reader.pool([0, 1], [WHOLE_IMAGE] * 2)
    yellow, red = NAMES.index("yellow"), NAMES.index("red")
    assert survey.own.tolist() == [NAMES.index("blue"), yellow]
    assert survey.best.tolist() == [yellow, yellow]
    np.testing.assert_allclose(survey.own_probability[1], soft[1, yellow] + soft[1, red], atol=1e-3)
    assert survey.disagrees.tolist() == [True, False]


def test_folders_by_number_are_told_apart_as_training_does(make_store, tmp_path):
    """Ten folders sort as numbers do, twelve do not: what is printed and what is trained on are the same classes."""
    torchvision = pytest.importorskip("torchvision")
    for number in range(12):
        colour = PALETTE[NAMES[number % 8]]
        paint(tmp_path / "images" / str(number) / "x.png", tuple(255 * value for value in colour))
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(f"class {number}" for number in range(12)))
    made = make_store(tmp_path / "images", model="toy_annotators:twelve", top_k=12, classes=str(names))
    assert (made.agreement.top5, made.agreement.images) == (1.0, 12)
    folder = torchvision.datasets.ImageFolder(str(tmp_path / "images"))
    assert folder.classes[:3] == ["0", "1", "10"]
    reader = LabelMapReader(tmp_path / "labels.zarr")
    for word in (None, "same"):
        with pytest.raises(ClassMatchError, match="class_map='by_id'"):
            match_classes(reader.info, folder.classes, word)
    trained = match_classes(reader.info, folder.classes, "by_id")
    assert trained.tolist() == own_labels(reader.info).classes.tolist() == [int(name) for name in folder.classes]


def test_labels_in_numbers_may_be_mapped(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    info = change(store, target_names=None).info  # blue's folder is 0, green's is 1, red's is 2
    right = {"0": "blue", "1": "green", "2": "red"}
    for given in (right, {key: NAMES.index(name) for key, name in right.items()}):
        assert own_labels(info, given).classes[:3].tolist() == [NAMES.index(name) for name in right.values()]
    assert label_agreement(LabelMapReader(store), class_map=right) == label_agreement(LabelMapReader(picture_store))
    assert own_labels(info, [4, 3]).classes.tolist() == [4, 3]
    assert own_labels(info, "same").classes.tolist() == list(range(8))
    with pytest.raises(ClassMatchError, match="labels are numbers, got 'blue'"):
        own_labels(info, {"blue": 4})


# What is shown


def test_annotate_and_info_show_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "images", FOLDERS["names"])
    toy = ("--workers", "0", "--model", "toy_annotators:colours", "--top-k", "8", "--encoding", "topk")
    shown = run_here("annotate", "images", *toy)
    assert "The images' own labels: 77.8% are the best class, 88.9% among the best five (9 images)" in shown.out.splitlines()
    said = json.loads(run_here("annotate", "images", *toy, "--store", "other.zarr", "--json").out)
    assert said["agreement"] == {"top1": pytest.approx(7 / 9), "top5": pytest.approx(8 / 9), "images": 9}
    words = " ".join(run_here("info").out.split())
    assert "of the images' own labels 77.8% are the best class of the whole image, 88.9% among the best five (9 images" in words
    assert json.loads(run_here("info", "--json").out)["agreement"] == said["agreement"]


def test_a_damaged_store_is_summed_up_all_the_same(picture_store, tmp_path):
    store = Path(shutil.copytree(picture_store, tmp_path / "labels.zarr"))
    data = bytearray((store / "scores" / "c.1.0.0.0").read_bytes())
    data[5:9] = bytes(byte ^ 255 for byte in data[5:9])
    (store / "scores" / "c.1.0.0.0").write_bytes(data)
    shown = run_here("info", store)
    assert shown.code == 0
    assert "21: 21 done" in shown.out
    assert "not measured: row 4" in " ".join(shown.out.split())
    assert json.loads(run_here("info", store, "--json").out)["agreement"] is None


def test_neither_shows_anything_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "images" / "x.png", "red")
    shown = run_here("annotate", "images", "--workers", "0", "--model", "toy_annotators:colours", "--top-k", "3")
    assert "The images' own labels:" not in shown.out
    assert "images have no labels that are the annotator's classes" in " ".join(run_here("info").out.split())
    assert json.loads(run_here("info", "--json").out)["agreement"] is None
