"""Labels that are no class of the annotator, or have only the name of one, are not wrong: left out, counted, and said so."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from browser import browsing, chromium, tab
from commands import TOY, run_here
from pictures import paint
from web_client import client_of

from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.crop_risk import CROPS, crop_risk
from labelstore.reader import LabelMapReader
from labelstore.statistics import confusions, overview
from labelstore.survey import Survey
from labelstore.suspects import find_suspects

REMEDY = "--class-map FILE says which classes of the annotator the labels are"


def surveyed(store, class_map=None):
    reader = LabelMapReader(store)
    survey = Survey(reader, class_map)
    survey.add(reader, np.arange(len(reader)))
    return reader, survey


@pytest.fixture
def foreign(tmp_path):
    """A store of 9 yellow pictures in a folder of no class, 6 cyan ones in another class, and 3 that are right."""
    for number in range(9):
        paint(tmp_path / "images" / "sun" / f"{number}.png", "yellow")
    for number in range(6):
        paint(tmp_path / "images" / "white" / f"{number}.png", "cyan")
    for number in range(3):
        paint(tmp_path / "images" / "red" / f"{number}.png", "red")
    said = run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY)
    assert said.code == 0, said.message
    return tmp_path / "labels.zarr", said.out


def test_nothing_is_said_of_them_but_how_many_they_are(foreign):
    store, _ = foreign
    reader, survey = surveyed(store)
    found = overview(survey)
    assert (found.images, found.labelled, found.left_out, found.agree) == (18, 3, 15, 3)
    assert len(find_suspects(survey).rows) == 0
    assert confusions(survey) == []
    risk = crop_risk(reader, survey)
    assert (risk.images, risk.crops, risk.labelled_images, risk.labelled_crops) == (18, 18 * CROPS, 3, 3 * CROPS)
    assert risk.from_label == 0


def test_annotate_info_and_report_name_the_remedy(foreign, tmp_path):
    store, out = foreign
    assert f"9 other images with labels that are no class of the annotator: {REMEDY}" in out
    assert REMEDY in " ".join(run_here("info", store).out.split())
    said = json.loads(run_here("info", store, "--json").out)
    assert (said["agreement"]["images"], said["labels_left_out"]) == (9, 9)
    shown = run_here("report", store, "--out", tmp_path / "r.html")
    expected = "15 images are left out of what is said of labels"
    each = "sun (9; 9 of them yellow), white (6; 6 of them cyan)"
    assert all(words in " ".join(shown.message.split()) for words in (expected, each, REMEDY))
    page = (tmp_path / "r.html").read_text()
    assert all(words in page for words in (expected, each, "of 3 single labels", f"of the {3 * CROPS} of 3 images"))


def test_a_class_map_brings_them_back(foreign, tmp_path):
    store, _ = foreign
    (tmp_path / "map.json").write_text(json.dumps({"sun": "yellow", "white": "cyan"}))
    _, survey = surveyed(store, tmp_path / "map.json")
    assert (overview(survey).labelled, overview(survey).agree, overview(survey).left_out) == (18, 18, 0)
    shown = run_here("report", store, "--out", tmp_path / "r.html", "--class-map", tmp_path / "map.json")
    assert "left out" not in shown.message
    assert "Labels that are not compared" not in (tmp_path / "r.html").read_text()


def test_labels_none_of_which_is_a_class_are_no_crash(tmp_path):
    paint(tmp_path / "images" / "sun" / "1.png", "yellow")
    said = run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY)
    assert said.code == 0
    words = f"images have no labels that are the annotator's classes; {REMEDY}"
    assert words in " ".join(run_here("info", tmp_path / "labels.zarr").out.split())
    _, survey = surveyed(tmp_path / "labels.zarr")
    assert (overview(survey).labelled, overview(survey).left_out) == (0, 1)
    assert run_here("report", tmp_path / "labels.zarr", "--out", tmp_path / "r.html").code == 0


def test_an_agreement_of_nothing_has_a_reason(tmp_path):
    paint(tmp_path / "images" / "white" / "1.png", "cyan")
    said = run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY)
    assert "0.0% are the best class" in said.out
    assert f"labels that never are the best class may have no more than its name, or its number: {REMEDY}" in said.out


def test_a_label_that_some_of_its_images_show_is_compared(tmp_path):
    for number, colour in enumerate(("cyan", "cyan", "cyan", "white")):
        paint(tmp_path / "images" / "white" / f"{number}.png", colour)
    assert run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY).code == 0
    _, survey = surveyed(tmp_path / "labels.zarr")
    assert survey.disagrees.tolist() == [True, True, True, False]


def test_a_mislabelled_class_whose_images_show_another_label_is_compared(tmp_path):
    for name, colour in (("white", "red"), ("red", "red")):
        paint(tmp_path / "images" / name / "1.png", colour)
    assert run_here("annotate", tmp_path / "images", "--store", tmp_path / "labels.zarr", *TOY).code == 0
    _, survey = surveyed(tmp_path / "labels.zarr")
    assert (overview(survey).labelled, survey.disagrees.sum()) == (2, 1)


def test_the_viewer_says_so(foreign):
    store, _ = foreign
    site = Site(str(store))
    with serving(site) as url:
        client = client_of(url, site)
        found = client.get("survey").json
        assert (found["labelled"], found["agree"], found["left_out"]["images"]) == (3, 3, 15)
        assert client.get("ids", disagrees="true").json["total"] == 0
        assert not any(image["disagrees"] for image in client.get("ids").json["images"])
        compared = {name: client.get("maps", id=f"{name}/0.png").json["compared"] for name in ("sun", "white", "red")}
        assert compared == {"sun": False, "white": False, "red": True}
        assert client.get("survey").json["left_out"]["labels"][0]["label"] == "sun"


@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_the_page_holds_no_crop_against_such_a_label(foreign):
    store, _ = foreign
    site = Site(str(store))
    with serving(site) as url, browsing() as browser, tab(browser, client_of(url, site).url) as page:
        for name, why in (("sun", "is no class of the annotator"), ("white", "none of its images shows")):
            page.open(f"/image?id={name}%2F0.png&crops=0")
            page.locator(".strip .crops").wait_for()
            words = page.locator(".strip").inner_text()
            assert re.search(r"0 of 8 random crops differ from the whole image's best class", words), words
            assert why in words
            assert "--class-map" in words
            assert why in page.locator(".verdict").inner_text()
        page.open("/image?id=red%2F0.png&crops=0")
        page.locator(".strip .crops").wait_for()
        assert "0 of 8 random crops differ from the single label." in page.locator(".strip").inner_text()
        page.open("/store")
        page.locator(".tiles").get_by_text("left out").wait_for()
