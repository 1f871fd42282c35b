"""What a server keeps of its store; stores that were extended, damaged, or are still being written."""

from __future__ import annotations

import shutil

import pytest
from commands import TOY, run_here
from pictures import paint
from web_client import client_of

from labelstore.cli.web import surveying
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Kept, Site

WHOLE = [0.0, 0.0, 1.0, 1.0]


def test_what_was_asked_for_last_is_kept_up_to_a_total():
    made = []
    kept: Kept[str] = Kept(10, len)

    def get(key: str, size: int = 4) -> str:
        return kept.get(key, lambda: (made.append(key), key * size)[1])

    for key in "abab":
        assert get(key) == key * 4
    assert made == ["a", "b"]
    get("c")  # a goes, which was used before b
    get("b")
    assert made == ["a", "b", "c"]
    get("a")
    get("c")
    assert made == ["a", "b", "c", "a", "c"]
    assert get("z", 100) == "z" * 100  # larger than all of it: kept by itself
    assert made[-1] == "z"


@pytest.fixture
def extended(tmp_path):
    """A store of 3 images and, after a hole of one row, 2 more."""
    for number, colour in enumerate(("red", "green", "blue")):
        paint(tmp_path / "old" / colour / f"{number}.png", colour)
    for number, colour in enumerate(("red", "yellow")):
        paint(tmp_path / "new" / colour / f"new {number}.png", colour)
    store = tmp_path / "labels.zarr"
    assert run_here("annotate", tmp_path / "old", "--store", store, "--shard-size", 4, *TOY).code == 0
    assert run_here("annotate", tmp_path / "new", "--store", store, *TOY, "--extend").code == 0
    return store


def test_holes_are_no_images(extended):
    site = Site(str(extended))
    with serving(site) as url:
        client = client_of(url, site)
        page = client.get("ids").json
        assert page["total"] == 5
        assert [image["row"] for image in page["images"]] == [0, 1, 2, 4, 5]
        assert client.get("ids", order="entropy").json["total"] == 5
        assert [image["row"] for image in client.get("ids", offset=2, limit=2).json["images"]] == [2, 4]
        assert client.get("ids", q="new").json["total"] == 2
        for name in ("maps", "photo", "cells", "crops"):
            assert client.get(name, row=3).status == 404
        assert client.get("photo", id="yellow/new 1.png").status == 200  # below the root of its own run
        assert client.get("info").json["rows"]["all"] == 5


def test_rows_appear_as_they_are_committed(partial_store, tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "_AGAIN", 0.05)
    monkeypatch.setattr("labelstore.cli.web.site._COUNTS_SECONDS", 0)
    store = tmp_path / "labels.zarr"
    shutil.copytree(partial_store, store)
    site = Site(str(store))
    with serving(site) as url:
        client = client_of(url, site)
        assert client.post("pool", {"ids": ["red/7.png"], "boxes": [WHOLE]}).status == 409
        images = site.info.images_root
        assert run_here("annotate", images, "--store", store, *TOY).code == 0
        assert client.post("pool", {"ids": ["red/7.png"], "boxes": [WHOLE]}).status == 200
        for _ in range(200):
            if client.get("ids", status="done").json["surveyed"]["rows"] == 7:
                break
            site.surveyor.finished.wait(0.05)
        assert client.get("ids", q="red/7").json["images"][0]["best"]["name"] == "red"
        assert client.get("info").json["rows"] == {"all": 8, "done": 7, "failed": 1, "pending": 0}


def test_damaged_maps_are_named_and_the_rest_is_served(picture_store, tmp_path):
    store = tmp_path / "labels.zarr"
    shutil.copytree(picture_store, store)
    file = next((store / "scores").glob("c.0.*"))
    data = bytearray(file.read_bytes())
    data[10] ^= 255
    file.write_bytes(bytes(data))
    site = Site(str(store))
    with serving(site) as url:
        client = client_of(url, site)
        damaged = client.get("survey").json["damaged"]
        assert damaged
        assert "scores" in damaged[0]["message"]
        row = damaged[0]["row"]
        answer = client.post("pool", {"rows": [row], "boxes": [WHOLE]})
        assert (answer.status, answer.json["error"]["kind"]) == (500, "DamagedError")
        others = [other for other in range(21) if other not in {each["row"] for each in damaged}]
        assert client.post("pool", {"rows": others, "boxes": [WHOLE] * len(others)}).status == 200
