"""`--class-map`: the commands that look at images' own labels and training mean the same classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import TOY, run_here
from pictures import paint

from labelstore import LabelMapReader
from labelstore.boxes import WHOLE_IMAGE
from labelstore.class_map import match_classes

LABELS = {"sky": "blue", "lawn": ["green", "yellow"], "lava": "white"}
"""The last one is wrong."""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, colour in (("sky", "blue"), ("lawn", "lime"), ("lava", "red")):
        paint(Path("images", name, "x.png"), colour)
    Path("map.json").write_text(json.dumps(LABELS))
    rows = [f"{label},{name}" for label, names in LABELS.items() for name in ([names] if isinstance(names, str) else names)]
    Path("map.csv").write_text("\n".join(["label,class", *rows]))
    return tmp_path


def test_annotate_and_info_go_by_it_as_training_does(here):
    assert "The images' own labels" not in run_here("annotate", "images", *TOY, "--store", "without.zarr").out
    for file in ("map.json", "map.csv"):
        made = json.loads(run_here("annotate", "images", *TOY, "--store", f"{file}.zarr", "--class-map", file, "--json").out)
        said = json.loads(run_here("info", "without.zarr", "--class-map", file, "--json").out)
        assert made["agreement"] == said["agreement"]
        assert (said["agreement"]["top1"], said["agreement"]["images"]) == (pytest.approx(2 / 3), 3)
    assert json.loads(run_here("info", "without.zarr", "--json").out)["agreement"] is None
    reader = LabelMapReader("without.zarr")
    columns = match_classes(reader.info, reader.info.target_names, "map.json")
    best = reader.pool([0, 1, 2], [WHOLE_IMAGE] * 3, class_map=columns).argmax(axis=1)
    assert np.mean(best == reader.targets) == pytest.approx(2 / 3)


def test_evaluate_report_and_view_go_by_it(here):
    run_here("annotate", "images", *TOY)
    Path("real.json").write_text(json.dumps({f"{name}/x.png": names for name, names in LABELS.items()}))
    said = json.loads(run_here("evaluate", "--labels", "real.json", "--class-map", "map.json", "--json").out)["store"]
    assert (said["own_top1"], said["own_present"]) == (pytest.approx(2 / 3), 1.0)
    assert json.loads(run_here("evaluate", "--labels", "real.json", "--json").out)["store"]["own_top1"] is None
    assert run_here("report", "--class-map", "map.json").code == 0
    (row,) = Path("report.csv").read_text().splitlines()[1:]
    assert "lava/x.png" in row
    from labelstore.cli.web.site import Site

    site = Site("labels.zarr", None, "map.json")
    assert [site.target(row)["class_name"] for row in range(3)] == ["white", "green", "blue"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"sky": "bleu"}', "'bleu' (similar: 'blue'"),
        ('{"sky": "crane"}', "'crane'"),
        ('{"skies": "blue"}', "none of its labels ('skies', ...) is one of the images' ('lava', 'lawn', 'sky', ...)"),
        ("{", "expected JSON"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_before_the_work(here, text, words):
    Path("wrong.json").write_text(text)
    code = 2 if words == "expected JSON" else 1
    ended = run_here("annotate", "images", *TOY, "--class-map", "wrong.json")
    assert (ended.code, words in ended.message) == (code, True), ended.message
    assert not Path("labels.zarr").exists()
    run_here("annotate", "images", *TOY)
    for command in (("annotate", "images", *TOY), ("info",), ("report",)):
        ended = run_here(*command, "--class-map", "wrong.json")
        assert (ended.code, words in ended.message) == (code, True), ended.message


def test_a_map_is_looked_for(here):
    assert "none.csv: cannot be read: No such file" in run_here("annotate", "images", *TOY, "--class-map", "none.csv").message
    assert "expected 'same', 'by_id', a file" in run_here("annotate", "images", *TOY, "--class-map", "map").message
