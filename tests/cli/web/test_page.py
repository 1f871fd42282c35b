"""The page, in a real browser: what people do with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from browser import browsing, chromium, tab
from pictures import paint
from PIL import Image
from runs import SERIAL
from web_client import client_of

from labelstore.cli.web.guard import Rules
from labelstore.cli.web.opening import opening_page
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.samples import copy_samples
from labelstore.pipelines.settings import Settings

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: apt-get install chromium")
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TWO = "blue/0.png"  # left half blue, right half yellow
CUP_AND_CAT = "n02124075/cup-and-cat.jpg"  # a cup of espresso in its left half, a cat in its right


@pytest.fixture(scope="module")
def browser():
    with browsing() as found:
        yield found


@pytest.fixture
def opened(browser):
    """A function that opens a tab for a server; at the end nothing may have gone wrong in any of them."""
    tabs, contexts = [], []

    def open_tab(client, path="/", **options):
        context = tab(browser, client.url, **options)
        contexts.append(context)
        tabs.append(context.__enter__())
        return tabs[-1].open(path)

    yield open_tab
    said = [line for found in tabs for line in found.said]
    elsewhere = [line for found in tabs for line in found.elsewhere]
    for context in contexts:
        context.__exit__(None, None, None)
    assert said == []
    assert elsewhere == []


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A server of two photographs by a real ImageNet model: a cat, and a cup of espresso and the cat side by side."""
    root = tmp_path_factory.mktemp("photographs")
    samples = copy_samples(root / "samples")
    (root / "images" / "n02124075").mkdir(parents=True)
    cat, cup = (Image.open(samples / name).convert("RGB") for name in ("chelsea.png", "coffee.png"))
    cat.save(root / "images" / "n02124075" / "chelsea.png")
    both = Image.new("RGB", (600, 400))
    both.paste(cup.crop((100, 0, 500, 400)).resize((300, 400)), (0, 0))
    both.paste(cat.crop((60, 0, 360, 300)).resize((300, 400)), (300, 0))
    both.save(root / "images" / CUP_AND_CAT, quality=92)
    annotate(root / "images", str(root / "labels.zarr"), Settings(), SERIAL, Observer())
    site = Site(str(root / "labels.zarr"))
    with serving(site) as url:
        yield client_of(url, site)


def image(image_id: str, **parameters: object) -> str:
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    return f"/image?id={quote(image_id)}{more}"


def eventually(tab, condition: str) -> None:
    """Wait until something is so in the page, whose rules keep Playwright's own way of waiting out."""
    for _ in range(300):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"{condition}: not within 15 s")


def crop_says(tab, name: str) -> None:
    tab.locator("#crop-label .name").first.filter(has_text=name).wait_for()


# All images


def test_it_loads_and_shows_every_thumbnail(opened, viewed):
    tab = opened(viewed)
    assert tab.locator(".summary").inner_text() == "21 images"
    assert tab.locator(".cell a").count() == 21
    sizes = tab.evaluate("[...document.querySelectorAll('.thumb img')].map((image) => image.naturalWidth)")
    assert sizes == [60] * 21
    tab.get_by_label("maps").check()
    eventually(tab, "document.querySelectorAll('.thumb .pixels').length === 21")
    assert "maps=1" in tab.page.url


def test_the_page_of_open_and_links_from_elsewhere_lead_in(browser, picture_store, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    site = Site(str(picture_store))
    with serving(site, Rules(token="a-token-of-this-test")) as url, opening_page(f"{url}/?token=a-token-of-this-test") as page:
        with tab(browser, url) as found:
            found.page.goto(page.as_uri())
            found.locator(".cell a").first.wait_for()
            assert found.page.url == f"{url}/"
            assert (found.said, found.evaluate("document.cookie")) == ([], "")
            found.open("/store")
            found.get_by_text("agreement", exact=False).first.wait_for()
        with tab(browser, url) as other:  # another profile: no cookie
            other.page.goto(url)
            assert "asks for its token" in other.page.content()


def test_searching_by_id_and_by_class_name(opened, viewed):
    tab = opened(viewed)
    tab.get_by_label("Search").fill("GREEN/3")
    eventually(tab, "document.querySelector('.summary').textContent === '1 image'")
    assert tab.locator(".cell .name").inner_text() == "green/3.png"
    tab.get_by_label("Search").fill("yellow")
    eventually(tab, f"document.querySelector('.cell .name')?.textContent === '{TWO}'")
    assert tab.locator(".chip").inner_text() == "yellow · 1"
    tab.locator(".chip").click()
    tab.locator(".chip.chosen").wait_for()
    assert tab.page.url.endswith("/?class=5")
    assert tab.locator(".chip.chosen").inner_text() == "class 5: yellow"
    tab.get_by_role("button", name="Clear").click()
    eventually(tab, "document.querySelector('.summary').textContent === '21 images'")


def test_a_click_right_after_typing_is_not_lost(opened, viewed):
    tab = opened(viewed)
    tab.get_by_label("Search").press_sequentially("green/4")
    eventually(tab, "document.querySelector('.summary').textContent === '1 image'")
    tab.locator(".cell a").click()
    tab.locator("h1", has_text="green/4.png").wait_for()
    assert "green%2F4.png" in tab.page.url


def test_filters_leave_what_the_api_says(opened, viewed, viewed_partial):
    tab = opened(viewed, "/?q=nothing-like-it")
    assert tab.locator(".summary").inner_text() == "0 images"
    tab.get_by_label("Search").fill("")
    tab.get_by_label("disagrees").check()
    expected = viewed.get("ids", disagrees="true").json["total"]
    eventually(tab, f"document.querySelectorAll('.cell .tag').length === {expected}")
    other = opened(viewed_partial, "/?status=failed")
    assert other.locator(".cell .name").all_inner_texts() == ["blue/4.png"]
    assert other.locator(".cell .said").inner_text() == "failed"
    other.get_by_label("Rows").select_option("pending")
    eventually(other, "document.querySelectorAll('.cell').length === 4")


def test_opening_an_image_and_going_back(opened, viewed):
    tab = opened(viewed, "/?q=red")
    tab.locator(".cell a").nth(2).click()
    tab.locator("h1", has_text="red/2.png").wait_for()
    tab.get_by_role("button", name="Next").click()
    tab.locator("h1", has_text="red/3.png").wait_for()
    tab.keyboard.press("k")
    tab.locator("h1", has_text="red/2.png").wait_for()
    tab.keyboard.press("g")
    eventually(tab, "document.querySelectorAll('.cell').length === 7")
    tab.go_back()
    tab.locator("h1", has_text="red/2.png").wait_for()
    assert "red%2F2.png" in tab.page.url


# One image


def test_the_label_follows_the_box_to_the_other_photograph(opened, photographs):
    tab = opened(photographs, image(CUP_AND_CAT, box="0.02,0.1,0.45,0.9"))
    crop_says(tab, "espresso")
    assert "Egyptian cat" in tab.locator(".target").inner_text()
    assert "differs" in tab.locator(".verdict").inner_text()
    tab.drag((0.2, 0.5), (0.73, 0.5))
    crop_says(tab, "cat")
    assert tab.box() == pytest.approx([0.55, 0.1, 0.98, 0.9], abs=0.01)
    expected = photographs.site.reader.pool([CUP_AND_CAT], [tab.box()])[0]
    assert tab.label() == photographs.site.reader.class_names[int(expected.argmax())]


def test_a_box_is_drawn_resized_and_mirrored_with_the_mouse(opened, photographs):
    tab = opened(photographs, image(CUP_AND_CAT, box="0.3,0.3,0.4,0.4"))
    tab.drag((0.55, 0.05), (0.95, 0.9))  # outside of the box: a new one
    assert tab.box() == pytest.approx([0.55, 0.05, 0.95, 0.9], abs=0.01)
    crop_says(tab, "cat")
    tab.drag((0.55, 0.475), (0.7, 0.475))  # the handle at its left
    assert tab.box() == pytest.approx([0.7, 0.05, 0.95, 0.9], abs=0.01)
    tab.drag((0.95, 0.475), (0.1, 0.475))  # its right side past its left one
    assert tab.box() == pytest.approx([0.7, 0.05, 0.1, 0.9], abs=0.01)
    assert tab.locator(".box.mirrored").count() == 1
    tab.drag((0.1, 0.475), (0.05, 0.475))  # what is now its left side
    assert tab.box() == pytest.approx([0.7, 0.05, 0.05, 0.9], abs=0.01)


def test_a_mirrored_crop_has_the_same_label_and_a_mirrored_picture(opened, photographs):
    tab = opened(photographs, image(CUP_AND_CAT, box="0.25,0.1,0.75,0.9"))
    read = "(() => [...document.querySelector('.preview').getContext('2d').getImageData(10, 75, 1, 1).data].slice(0, 3))()"
    shares = tab.locator("#crop-label .share").all_inner_texts()
    left = tab.evaluate(read)
    right = tab.evaluate(read.replace("10, 75", "139, 75"))
    with tab.page.expect_response(lambda answer: "/api/pool" in answer.url):
        tab.get_by_role("button", name="Mirror").click()
    assert tab.box() == [0.75, 0.1, 0.25, 0.9]
    assert tab.evaluate(read) == pytest.approx(right, abs=12)
    assert tab.evaluate(read.replace("10, 75", "139, 75")) == pytest.approx(left, abs=12)
    tab.wait_for_timeout(200)  # what was answered is drawn
    assert tab.locator("#crop-label .share").all_inner_texts() == shares


def test_an_address_is_shared_with_all_that_it_shows(opened, viewed):
    tab = opened(viewed, image(TWO))
    tab.locator("#box-text").fill("0.6,0,0.95,1")
    tab.locator("#box-text").press("Enter")
    tab.get_by_label("Map", exact=True).fill("30")
    tab.locator(".legend button", has_text="yellow").click()
    tab.get_by_role("button", name="Random crops").click()
    eventually(tab, "new URLSearchParams(location.search).get('crops') === '0'")
    eventually(tab, "new URLSearchParams(location.search).get('opacity') === '30'")
    other = opened(viewed, tab.page.url.removeprefix(viewed.url))
    assert other.box() == [0.6, 0, 0.95, 1]
    assert other.get_by_label("Map", exact=True).input_value() == "30"
    assert other.locator(".legend button[aria-pressed=true]").inner_text().split("\n")[1] == "yellow"
    crop_says(other, "yellow")
    assert other.locator(".crops li").count() == 8
    assert other.locator(".crops .share").all_inner_texts() == tab.locator(".crops .share").all_inner_texts()


def test_a_class_alone_is_bright_where_it_is(opened, viewed):
    tab = opened(viewed, image(TWO))
    assert tab.locator("canvas.pixels").is_hidden()
    tab.locator(".legend button", has_text="yellow").click()
    assert tab.locator("img.pixels").first.is_hidden()
    read = "(x) => [...document.querySelector('canvas.pixels').getContext('2d').getImageData(x, 3, 1, 1).data]"
    assert tab.evaluate(read, 6)[1] > 200 > 20 > tab.evaluate(read, 0)[1] - 20
    tab.locator(".legend button", has_text="yellow").click()
    assert tab.locator("canvas.pixels").is_hidden()


def test_a_cell_under_the_pointer_tells_its_classes(opened, viewed):
    tab = opened(viewed, image(TWO, box="0.4,0.4,0.6,0.6"))
    area = tab.locator(".stage").bounding_box()
    tab.mouse.move(area["x"] + area["width"] * 0.95, area["y"] + area["height"] * 0.05)
    said = tab.locator(".cell-text").inner_text()
    assert said.startswith("row 1, column 7: yellow ")
    assert len(said.split(" · ")) == 3


def test_random_crops_have_labels_and_become_the_box(opened, photographs):
    tab = opened(photographs, image(CUP_AND_CAT))
    tab.keyboard.press("r")
    tab.locator(".crops li").nth(7).wait_for()
    differing = tab.locator(".crops .tag").count()
    assert tab.locator(".strip p").inner_text() == f"{differing} of 8 random crops differ from the single label."
    assert 0 < differing < 8
    first = tab.locator(".crops .name").first.inner_text()
    tab.locator(".crops button").first.click()
    crop_says(tab, first)
    before = tab.locator(".crops .share").all_inner_texts()
    tab.keyboard.press("r")
    eventually(tab, "new URLSearchParams(location.search).get('crops') === '1'")
    shares = "JSON.stringify([...document.querySelectorAll('.crops .share')].map(share => share.innerText))"
    eventually(tab, f"{shares} !== JSON.stringify({json.dumps(before)})")
    tab.locator(".crops li").nth(7).wait_for()


def test_a_box_that_is_none_is_marked_and_changes_nothing(opened, viewed):
    tab = opened(viewed, image(TWO, box="0,0,0.4,1"))
    for text in ("1,2,3", "a,b,c,d", "0,0,0,1", ""):
        tab.locator("#box-text").fill(text)
        tab.locator("#box-text").press("Enter")
        assert tab.locator("#box-text").get_attribute("aria-invalid") == "true"
    crop_says(tab, "blue")


# What is not there


def test_rows_without_a_map_say_why(opened, viewed_partial):
    pending = opened(viewed_partial, image("red/7.png"))
    assert "has not been made yet" in pending.locator(".notice").inner_text()
    assert pending.locator(".stage .photo").is_visible()
    failed = opened(viewed_partial, image("blue/4.png"))
    assert "cannot identify image file" in failed.locator(".notice").inner_text()
    assert "No photograph" in failed.locator(".no-photo").inner_text()
    gone = opened(viewed_partial, image("not/there.png"))
    assert "no image id 'not/there.png'" in gone.locator(".notice").inner_text()
    failed.said.clear()  # browsers tell of every answer that is no success
    gone.said.clear()


def test_a_store_without_its_photographs_still_shows_its_maps(opened, picture_store, tmp_path):
    site = Site(str(picture_store), str(tmp_path / "nowhere"))
    with serving(site) as url:
        tab = opened(client_of(url, site), image(TWO, box="0.6,0,1,1"))
        assert "--images" in tab.locator(".no-photo").inner_text()
        crop_says(tab, "yellow")
        tab.open("/")
        assert tab.locator(".thumb.missing").count() == 21
        tab.said.clear()


def test_names_are_text_whatever_they_are(opened, make_store, tmp_path):
    name = "<img src=x onerror=document.title='hacked'>.png"
    paint(tmp_path / "images" / "<b>bold</b>" / name, "red")
    make_store(tmp_path / "images")
    site = Site(str(tmp_path / "labels.zarr"))
    with serving(site) as url:
        tab = opened(client_of(url, site))
        assert tab.locator(".cell .name").inner_text() == f"<b>bold</b>/{name}"
        tab.locator(".cell a").click()
        tab.locator("h1", has_text=name).wait_for()
        assert "hacked" not in tab.title().split(name)[0]
        assert tab.locator("h1 img, h1 b").count() == 0
        tab.open("/store")


def test_scripts_that_are_not_files_of_the_page_do_not_run(opened, viewed):
    tab = opened(viewed)
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=/x onerror=\"window.ran = 1\">')")
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in tab.said)
    tab.said.clear()


# The store


def test_the_stores_page_sums_it_up(opened, viewed, viewed_partial):
    tab = opened(viewed, "/store")
    assert "21: 21 done, 0 failed, 0 pending" in tab.locator(".facts").inner_text()
    survey = viewed.get("survey").json
    assert f"of {survey['labelled']} single labels" in tab.locator(".tiles").inner_text()
    assert tab.locator(".histogram li").count() == 24
    tab.locator("table").first.get_by_role("link", name="yellow").click()
    eventually(tab, "document.querySelectorAll('.cell').length === 1")
    other = opened(viewed_partial, "/store")
    assert "1 failed row" in other.locator("main").inner_text()
    assert "cannot identify image file" in other.locator(".failures").inner_text()


# For everybody


def test_by_keyboard_alone(opened, viewed):
    tab = opened(viewed)
    tab.keyboard.press("/")
    tab.keyboard.type("blue")
    eventually(tab, "document.querySelectorAll('.cell').length === 7")
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.cell a')"):
            break
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    tab.locator("h1", has_text=TWO).wait_for()
    tab.locator("#box").wait_for()
    tab.keyboard.press("w")
    assert tab.box() == [0, 0, 1, 1]
    tab.keyboard.press("b")
    for _ in range(30):
        tab.keyboard.press("Shift+ArrowLeft")
    assert tab.box() == pytest.approx([0, 0, 0.4, 1], abs=0.001)
    crop_says(tab, "blue")
    for _ in range(40):
        tab.keyboard.press("ArrowRight")
    assert tab.box() == pytest.approx([0.6, 0, 1, 1], abs=0.001)
    crop_says(tab, "yellow")
    tab.keyboard.press("Control+ArrowLeft")
    assert tab.box()[0] == pytest.approx(0.598, abs=0.0005)
    tab.keyboard.press("f")
    assert tab.box()[0] > tab.box()[2]
    tab.keyboard.press("v")
    assert tab.box()[1] > tab.box()[3]
    tab.keyboard.press("m")
    assert tab.locator("#opacity").input_value() == "0"
    tab.keyboard.press("?")
    assert tab.locator("#keys").is_visible()
    tab.keyboard.press("Escape")
    assert tab.locator("#keys").is_hidden()


def test_dark_and_light_by_the_system_or_the_user(opened, viewed):
    page = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(viewed, color_scheme="light"), opened(viewed, color_scheme="dark")
    assert min(map(int, re.findall(r"\d+", light.evaluate(page)))) > 200
    assert max(map(int, re.findall(r"\d+", dark.evaluate(page)))) < 60
    for name in ("Auto", "Light"):
        light.get_by_role("button", name=f"Colours: {name.lower()}").click()
    assert max(map(int, re.findall(r"\d+", light.evaluate(page)))) < 60
    light.open("/store")
    assert max(map(int, re.findall(r"\d+", light.evaluate(page)))) < 60


@pytest.mark.parametrize("path", ["/", "/?q=blue", image(TWO, crops=1), "/store"])
def test_a_narrow_window_shows_all_without_scrolling_sideways(opened, viewed, path):
    tab = opened(viewed, path, viewport={"width": 400, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert tab.evaluate("document.querySelector('main').scrollWidth") <= 400
    assert tab.locator("h1").first.count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_barrier(opened, viewed, viewed_partial, scheme):
    found = {}
    for client, path in [
        (viewed, "/?maps=1"),
        (viewed, "/?q=yellow"),
        (viewed, image(TWO, crops=0, heat=5)),
        (viewed, "/store"),
        (viewed_partial, "/"),
        (viewed_partial, "/store"),
        (viewed_partial, image("red/7.png")),
    ]:
        found[path] = opened(client, path, color_scheme=scheme).serious()
    assert not any(found.values()), found


# Very many


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A server of 100,000 images: in a narrow window more rows than an element can be high."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (8, 10, 1, 1)) + rng.normal(0, 1, (8, 10, 3, 3))
    np.savez(root / "dense.npz", logits=logits.astype(np.float16))
    options = ["--rows", "100000", "--encoding", "spectral", "--shape", "4", "1", "2", "0", "--dense", root / "dense.npz"]
    subprocess.run([sys.executable, BENCHMARKS / "big_store.py", root / "many.zarr", *options], check=True, capture_output=True)
    site = Site(str(root / "many.zarr"))
    with serving(site) as url:
        yield client_of(url, site)


def test_a_grid_of_very_many_is_scrolled_by_bar_wheel_and_keys(opened, many):
    tab = opened(many, viewport={"width": 400, "height": 900})
    ids = many.site.reader.ids
    first_seen = "document.elementFromPoint(100, document.querySelector('.grid').getBoundingClientRect().top + 60).closest('a')"
    grid = "document.querySelector('.grid')"
    assert tab.locator(".summary").inner_text() == "100,000 images"
    assert tab.evaluate(f"{grid}.scrollHeight") <= 8_000_000
    tab.evaluate(f"{grid}.scrollTop = {grid}.scrollHeight")
    tab.locator(".cell .name", has_text=ids[99_999]).wait_for()
    assert tab.locator(".cell").count() < 40
    tab.evaluate(f"{grid}.scrollTop = 3_000_000")
    eventually(tab, f"{first_seen} !== null")
    before = tab.evaluate(f"{first_seen}.getBoundingClientRect().top")
    name = tab.evaluate(f"{first_seen}.title")
    tab.mouse.move(200, 700)
    tab.mouse.wheel(0, 100)
    eventually(tab, f"Math.abs(document.querySelector('[title=\"{name}\"]').getBoundingClientRect().top - {before - 100}) < 2")
    tab.locator(".cell a").first.focus()
    tab.keyboard.press("End")
    eventually(tab, f"document.activeElement.title === '{ids[99_999]}'")
    tab.keyboard.press("ArrowUp")
    eventually(tab, f"document.activeElement.title === '{ids[99_997]}'")
    tab.keyboard.press("Home")
    eventually(tab, f"document.activeElement.title === '{ids[0]}'")
    tab.said.clear()  # of photographs that are not there


def test_a_place_among_very_many_is_in_the_address(opened, many):
    tab = opened(many, "/?at=64321")
    tab.locator(".cell .name", has_text=many.site.reader.ids[64_321]).wait_for()
    tab.locator(f".cell a[title='{many.site.reader.ids[64_321]}']").click()
    tab.get_by_role("button", name="Next").click()
    tab.locator("h1", has_text=many.site.reader.ids[64_322]).wait_for()
    assert "at=64322" in tab.page.url
    tab.said.clear()
