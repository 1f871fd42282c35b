"""`labelstore report`: one file that needs nothing else, and a ranked list."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from browser import browsing, chromium, tab
from commands import TOY, run_here
from pictures import paint

from labelstore.cli.reporting.markup import element, image, joined
from labelstore.cli.reporting.ranked import as_text


class Page(HTMLParser):
    """What is in a file: its texts, and what it points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset") and value]

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def wrong(make_store, tmp_path, pictures):
    """A store of 21 pictures, one of which lies in the wrong folder."""
    shutil.copytree(pictures, tmp_path / "images")
    (tmp_path / "images" / "red" / "0.png").rename(tmp_path / "images" / "green" / "wrong.png")
    make_store(tmp_path / "images")
    return tmp_path / "labels.zarr"


def test_it_says_what_the_maps_say_and_needs_nothing_else(wrong, tmp_path):
    shown = run_here("report", wrong, "--out", tmp_path / "r.html", "--examples", 3)
    assert (shown.code, shown.out) == (0, "")
    assert "Saved" in shown.message
    page = Page((tmp_path / "r.html").read_text())
    assert {link.split(":")[0] for link in page.links} == {"data"}
    assert "script" not in page.tags
    assert page.tags.count("figure") == 3 + 1  # those with most classes, and the wrong label
    assert sum(link.startswith("data:image/svg+xml") for link in page.links) == 4
    for words in ("green/wrong.png", "The map says red", "random training crops", "blue and yellow", "of 21 single labels"):
        assert words in page.words, words


def test_the_list_ranks_the_image_in_the_wrong_folder_first(wrong, tmp_path):
    run_here("report", wrong, "--out", tmp_path / "r.html")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]
    assert (first["rank"], first["image_id"], first["likely_wrong"]) == ("1", "green/wrong.png", "yes")
    assert (first["label"], first["label_name"], first["best_name"]) == ("green", "green", "red")
    assert float(first["margin"]) == pytest.approx(
        float(first["best_probability"]) - float(first["label_probability"]), abs=2e-3
    )
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))


def test_without_photographs_the_maps_are_shown(wrong, tmp_path):
    shutil.rmtree(tmp_path / "images")
    assert run_here("report", wrong, "--out", tmp_path / "r.html").code == 0
    page = Page((tmp_path / "r.html").read_text())
    assert "figure" in page.tags
    assert sum(link.startswith("data:image/jpeg") for link in page.links) == page.tags.count("figure")


def test_images_without_labels_are_reported_without_a_list(make_store, tmp_path):
    paint(tmp_path / "images" / "two.png", "red", "blue")
    make_store(tmp_path / "images", encoding="spectral")
    assert run_here("report", tmp_path / "labels.zarr", "--out", tmp_path / "r.html").code == 0
    page = Page((tmp_path / "r.html").read_text())
    assert "single label" not in page.words.split("With one label")[0].split("Images with several")[1]
    assert not (tmp_path / "r.csv").exists()


def test_names_are_text_whatever_they_are(make_store, tmp_path):
    paint(tmp_path / "images" / "<script>alert(1)</script>" / '" onload="x.png', "red", "green")
    make_store(tmp_path / "images")
    assert run_here("report", tmp_path / "labels.zarr", "--out", tmp_path / "r.html").code == 0
    page = Page((tmp_path / "r.html").read_text())
    assert "script" not in page.tags
    assert '" onload="x.png' in page.words


def test_what_cannot_be_reported_is_said_in_a_line(wrong, tmp_path):
    none = run_here("report", tmp_path / "none.zarr")
    assert (none.code, "no store here" in none.message) == (1, True)
    nowhere = run_here("report", wrong, "--out", tmp_path / "no" / "r.html")
    assert (nowhere.code, "there is no folder" in nowhere.message) == (2, True)
    for commit in (wrong / "commits").glob("c.*"):
        commit.unlink()
    pending = run_here("report", wrong, "--out", tmp_path / "r.html")
    assert (pending.code, "none that is done" in pending.message) == (1, True)


def test_what_is_missing_is_named(wrong, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"sys.argv = ['labelstore', 'report', {str(wrong)!r}, '--out', {str(tmp_path / 'r.html')!r}]\n"
        "from labelstore.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'labelstore[report]'" in done.stderr


@pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
def test_it_is_readable_for_everybody_and_in_a_narrow_window(wrong, tmp_path):
    run_here("report", wrong, "--out", tmp_path / "r.html")
    with browsing() as browser, tab(browser, "file://", viewport={"width": 400, "height": 700}) as page:
        page.open(str(tmp_path / "r.html"))
        assert page.serious() == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert (page.said, [asked for asked in page.elsewhere if not asked.startswith("data:")]) == ([], [])


def test_markup_escapes_texts_and_attributes():
    assert element("p", "<&>", element("b", "x"), class_="a") == '<p class="a">&lt;&amp;&gt;<b>x</b></p>'
    assert image('"', "<") == '<img src="&quot;" alt="&lt;">'
    assert joined(["a", element("i")]) == "a<i></i>"
    assert re.fullmatch(r"<td data-x=\"1\"></td>", element("td", data_x="1"))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff20"])
def test_no_cell_of_the_list_is_a_formula(start):
    assert as_text(f"{start}1+1|cmd") == f"'{start}1+1|cmd"
    assert as_text(f"a{start}") == f"a{start}"
    assert as_text("") == ""


def test_an_id_that_begins_like_a_formula_is_text(tmp_path):
    lines = ["path,id,label"]
    for number, (colour, label) in enumerate([("red", "red"), ("blue", "blue"), ("red", "blue")] * 4):
        paint(tmp_path / f"{number}.png", colour)
        lines.append(f"{number}.png,=id({number}),{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    store = tmp_path / "labels.zarr"
    assert run_here("annotate", tmp_path / "list.csv", "--store", store, *TOY).code == 0
    assert run_here("report", store, "--out", tmp_path / "report.html").code == 0
    with (tmp_path / "report.csv").open(newline="") as file:
        found = [row["image_id"] for row in csv.DictReader(file)]
    assert sorted(found) == sorted(f"'=id({number})" for number in (2, 5, 8, 11))
