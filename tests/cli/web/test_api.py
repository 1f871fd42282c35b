"""The HTTP API: what it answers is what the reader says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from web_client import client_of

from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site

TWO = "blue/0.png"  # left half blue, right half yellow
WHOLE = [0.0, 0.0, 1.0, 1.0]


@pytest.fixture(params=["viewed", "viewed_spectral"])
def either(request):
    """A server of a topk, and of a spectral store."""
    return request.getfixturevalue(request.param)


# pool


def test_soft_labels_as_raw_numbers_are_the_readers(either):
    ids = ["red/1.png", TWO, TWO]
    boxes = [WHOLE, [0.0, 0.0, 0.5, 1.0], [1.0, 0.2, 0.5, 0.9]]
    expected = either.site.reader.pool(ids, boxes)
    raw = either.post("pool", {"ids": ids, "boxes": boxes}, format="raw")
    assert (raw.status, raw.headers["content-type"], raw.headers["x-shape"]) == (200, "application/octet-stream", "3,8")
    np.testing.assert_array_equal(np.frombuffer(raw.body, "<f4").reshape(3, 8), expected)
    npy = either.post("pool", {"rows": either.site.reader.ids.rows(ids).tolist(), "boxes": boxes}, format="npy")
    assert npy.headers["content-type"] == "application/x-npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.body)), expected)


def test_soft_labels_in_json_are_the_best_classes_with_their_names(viewed):
    answer = viewed.post("pool", {"ids": [TWO] * 2, "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}, top=2)
    assert [label[0]["name"] for label in answer.json["labels"]] == ["blue", "yellow"]
    first = answer.json["labels"][0]
    assert len(first) == 2
    assert first[0]["id"] == "colour-blue"
    assert first[0]["probability"] == pytest.approx(viewed.site.reader.pool([TWO], [[0, 0, 0.5, 1]])[0].max(), abs=1e-6)


def test_a_temperature_is_heeded(viewed):
    body = {"ids": [TWO], "boxes": [WHOLE]}
    raw = viewed.post("pool", body, format="raw", temperature=2.5).body
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), viewed.site.reader.pool([TWO], [WHOLE], 2.5)[0])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "expected JSON"),
        (b'{"ids": ["red/1.png"], "boxes": [[0, 0, NaN, 1]]}', 400, "NaN"),
        (b"[" * 100_000, 400, "expected JSON"),
        ([], 422, "expected an object"),
        ({}, 422, "either ids or rows"),
        ({"ids": ["red/1.png"], "rows": [1], "boxes": [WHOLE]}, 422, "either ids or rows"),
        ({"ids": [], "boxes": []}, 422, "not empty"),
        ({"ids": "red/1.png", "boxes": [WHOLE]}, 422, "a list of texts"),
        ({"rows": [True], "boxes": [WHOLE]}, 422, "whole numbers"),
        ({"rows": [-1], "boxes": [WHOLE]}, 422, "from 0 on"),
        ({"rows": [10**30], "boxes": [WHOLE]}, 422, "from 0 on"),
        ({"rows": [21], "boxes": [WHOLE]}, 404, "expected 0..20"),
        ({"ids": ["../../etc/passwd"], "boxes": [WHOLE]}, 404, "no image id"),
        ({"ids": ["\ud800"], "boxes": [WHOLE]}, 404, "no image id"),
        ({"ids": ["red/1.png"]}, 422, "boxes"),
        ({"ids": ["red/1.png"], "boxes": [[0, 0, 1]]}, 422, "boxes"),
        ({"ids": ["red/1.png"], "boxes": [["0", 0, 1, 1]]}, 422, "boxes"),
        ({"ids": ["red/1.png"], "boxes": [[0, 0, 10**400, 1]]}, 422, "boxes"),
        ({"ids": ["red/1.png"], "boxes": [WHOLE, WHOLE]}, 422, "expected 1"),
        ({"ids": ["red/1.png"], "boxes": [[2, 2, 3, 3]]}, 422, "box"),
        ({"rows": [0] * 4097, "boxes": [WHOLE] * 4097}, 413, "at most 4096"),
    ],
)
def test_what_cannot_be_pooled_is_refused_with_what_was_expected(viewed, body, status, said):
    answer = viewed.post("pool", body)
    assert (answer.status, said in answer.message) == (status, True), answer.body
    assert answer.headers["content-type"] == "application/json"


def test_rows_without_a_map_are_a_conflict_with_the_reason(viewed_partial):
    failed = viewed_partial.post("pool", {"ids": ["blue/4.png"], "boxes": [WHOLE]})
    assert (failed.status, "cannot identify image file" in failed.message) == (409, True)
    pending = viewed_partial.post("pool", {"ids": ["red/7.png"], "boxes": [WHOLE]})
    assert (pending.status, "is pending" in pending.message) == (409, True)


# maps, crops


def test_a_map_has_classes_probabilities_names_and_colours(either):
    found = either.get("maps", id=TWO).json
    stored = either.site.reader[TWO]
    assert found["map"]["classes"] == stored.classes.tolist()
    assert np.array(found["map"]["probabilities"]).sum(axis=0).max() <= 1.001
    assert found["map"]["names"][str(int(stored.classes[0, 0, 0]))] == "blue"
    assert found["swatches"][str(int(stored.classes[0, 0, 0]))]["colour"].startswith("#")
    assert found["target"] == {"label": 0, "name": "blue", "class": 4, "class_name": "blue"}
    assert found["whole"][0]["class"] == int(either.site.reader.pool([TWO], [WHOLE]).argmax())


def test_why_there_is_no_map_is_said(viewed_partial):
    failed = viewed_partial.get("maps", id="blue/4.png").json
    assert (failed["status"], failed["map"]) == ("failed", None)
    assert "cannot identify image file" in failed["reason"]
    assert viewed_partial.get("maps", id="red/7.png").json["status"] == "pending"


def test_several_maps_at_once(viewed):
    ids = [TWO, "green/3.png"]
    npz = viewed.post("maps", {"ids": ids}, format="npz")
    found, expected = np.load(io.BytesIO(npz.body)), viewed.site.reader.read(ids)
    np.testing.assert_array_equal(found["classes"], expected.classes)
    np.testing.assert_array_equal(found["scores"], expected.scores)
    assert viewed.post("maps", {"ids": ids}).json["maps"][1]["classes"] == expected.classes[1].tolist()
    assert viewed.post("maps", {"rows": [0] * 17}).status == 413


def test_what_has_not_changed_is_not_sent_again(viewed):
    for path in ("/api/maps?id=red/1.png", "/api/cells?id=red/1.png", "/api/photo?id=red/1.png", "/"):
        first = viewed.ask(path)
        assert first.status == 200
        again = viewed.ask(path, if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert viewed.ask(path, if_none_match='"other"').body == first.body


def test_crops_are_the_same_for_the_same_seed_and_pooled_as_any(viewed):
    crops = viewed.get("crops", id=TWO, count=6, seed=3, aspect=1.5).json["crops"]
    assert crops == viewed.get("crops", id=TWO, count=6, seed=3, aspect=1.5).json["crops"]
    assert crops != viewed.get("crops", id=TWO, count=6, seed=4, aspect=1.5).json["crops"]
    soft = viewed.site.reader.pool([TWO] * 6, [crop["box"] for crop in crops])
    for crop, label in zip(crops, soft, strict=True):
        assert crop["label"][0]["probability"] == pytest.approx(label.max(), abs=1e-3)


def test_crops_are_by_default_of_the_shape_that_the_store_has(viewed):
    assert viewed.get("maps", id=TWO).json["size"] == [60, 40]
    assert viewed.get("crops", id=TWO, seed=3).json == viewed.get("crops", id=TWO, seed=3, aspect=1.5).json
    assert viewed.get("crops", id=TWO, seed=3).json != viewed.get("crops", id=TWO, seed=3, aspect=1).json


# ids, classes, facts


def listed(client, **filters) -> list[str]:
    return [image["id"] for image in client.get("ids", **filters).json["images"]]


def test_images_come_page_by_page(viewed):
    page = viewed.get("ids", offset=5, limit=3).json
    assert (page["total"], page["offset"]) == (21, 5)
    assert [image["id"] for image in page["images"]] == list(viewed.site.reader.ids[5:8])
    assert viewed.get("ids", offset=100).json["images"] == []


def test_images_are_found_by_id_in_either_case_and_by_class_name(viewed):
    assert listed(viewed, q="GREEN/3") == ["green/3.png"]
    assert listed(viewed, q="yellow") == [TWO]
    assert listed(viewed, q="colour-yellow") == [TWO]
    assert listed(viewed, q="nothing like it") == []
    assert listed(viewed, q="\0") == []


def test_filters(viewed):
    assert listed(viewed, class_=5) == [TWO]
    assert listed(viewed, class_=5, share=0.3) == [TWO]
    assert listed(viewed, class_=5, share=0.6) == []
    assert TWO in listed(viewed, several=0.3)
    assert listed(viewed, several=0.3, classes=3) == []
    most = viewed.get("ids", order="entropy").json["images"]
    assert [image["entropy"] for image in most] == sorted((image["entropy"] for image in most), reverse=True)
    least = most[3]["entropy"]
    assert len(listed(viewed, entropy=least - 0.002)) >= 4
    assert set(listed(viewed, disagrees="true")) == {image["id"] for image in most if image["disagrees"]}


def test_failed_and_pending_rows_are_found(viewed_partial):
    assert listed(viewed_partial, status="failed") == ["blue/4.png"]
    assert len(listed(viewed_partial, status="pending")) == 4
    failures = viewed_partial.get("failures").json
    assert (failures["total"], failures["failures"][0]["id"]) == (1, "blue/4.png")
    assert "cannot identify" in failures["failures"][0]["reason"]
    rows = viewed_partial.get("info").json["rows"]
    assert rows == {"all": 8, "done": 3, "failed": 1, "pending": 4}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "from 1 to 500"),
        ("limit=x", "a whole number"),
        ("share=nan", "a number"),
        ("share=2", "from 0 to 1"),
        ("status=gone", "one of done, failed, pending"),
        ("disagrees=perhaps", "true or false"),
        ("order=row&order=row", "expected once"),
        ("colour=red", "expected parameters of"),
        ("q=" + "x" * 201, "to 200 characters"),
    ],
)
def test_parameters_are_checked_as_they_are_described(viewed, query, said):
    answer = viewed.ask(f"/api/ids?{query}")
    assert (answer.status, said in answer.message) == (422, True), answer.body


def test_classes_are_listed_and_counted(viewed):
    found = viewed.get("classes", order="images", limit=3).json
    assert found["total"] == 8
    counts = [entry["images"] for entry in found["classes"]]
    assert counts == sorted(counts, reverse=True)
    assert viewed.get("classes", q="YELL").json["classes"] == [
        {"class": 5, "name": "yellow", "id": "colour-yellow", "colour": "#882255", "images": 1}
    ]


def test_the_store_is_summed_up(viewed):
    info = viewed.get("info").json
    assert info["rows"] == {"all": 21, "done": 21, "failed": 0, "pending": 0}
    assert (info["num_classes"], info["map_size"], info["has_targets"]) == (8, [7, 7], True)
    survey = viewed.get("survey").json
    assert survey["surveyed"] == {"rows": 21, "finished": True}
    assert survey["labelled"] == 21
    wrong = survey["labelled"] - survey["agree"]
    assert wrong == len(listed(viewed, disagrees="true")) == sum(pair["images"] for pair in survey["confusions"])
    assert sum(survey["entropy"]["images"]) == 21
    assert viewed.get("healthz").json == {"status": "ok", "rows": 21}


def test_metrics_count_requests_and_labels(viewed):
    before = _value(viewed, 'labelstore_requests_total{path="/api/pool",status="200"}')
    labels = _value(viewed, "labelstore_labels_served")
    viewed.post("pool", {"rows": [0] * 7, "boxes": [WHOLE] * 7})
    assert _value(viewed, 'labelstore_requests_total{path="/api/pool",status="200"}') == before + 1
    assert _value(viewed, "labelstore_labels_served") == labels + 7


def _value(client, name: str) -> float:
    lines = client.get("metrics").body.decode().splitlines()
    return float(next((line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)), 0))


# photographs


def test_photographs_are_decoded_and_made_small(viewed):
    answer = viewed.get("photo", id=TWO)
    assert answer.headers["content-type"] == "image/jpeg"
    photo = Image.open(io.BytesIO(answer.body))
    assert photo.size == (60, 40)
    left, right = photo.getpixel((10, 20)), photo.getpixel((50, 20))
    assert left[2] > 200 > left[0]
    assert right[0] > 200 > right[2]


def test_cells_are_a_pixel_a_location_in_the_classes_colours(viewed):
    cells = Image.open(io.BytesIO(viewed.get("cells", id=TWO).body))
    swatches = viewed.get("maps", id=TWO).json["swatches"]
    assert cells.size == (7, 7)
    assert "#{:02x}{:02x}{:02x}".format(*cells.getpixel((0, 3))[:3]) == swatches["4"]["colour"]
    assert "#{:02x}{:02x}{:02x}".format(*cells.getpixel((6, 3))[:3]) == swatches["5"]["colour"]


def test_a_store_whose_images_are_gone_says_so_and_serves_the_rest(picture_store, tmp_path):
    site = Site(str(picture_store), str(tmp_path / "nowhere"))
    with serving(site) as url:
        client = client_of(url, site)
        answer = client.get("photo", id=TWO)
        assert (answer.status, "--images" in answer.message) == (404, True)
        assert client.get("cells", id=TWO).status == 200
