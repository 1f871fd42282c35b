"""Requests that mean harm: nothing from outside of the root, no error of the server's own, and it still answers."""

from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from hostile_requests import SECRET, SECRET_COLOUR, lay_out, requests, send_all
from PIL import Image
from runs import SERIAL
from web_client import client_of

from labelstore.cli.web.guard import Rules
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings

COUNT = 3000
"""Of the 10,000 that `make fuzz` sends."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A server of a store of images, two of which lie behind links out of their root."""
    root = tmp_path_factory.mktemp("attacked")
    images = lay_out(root)
    annotate(images, str(root / "labels.zarr"), Settings(model="toy_annotators:colours", top_k=3), SERIAL, Observer())
    site = Site(str(root / "labels.zarr"))
    with serving(site, Rules(rate=1e6, burst=1e6)) as url:
        yield client_of(url, site), images


def test_images_behind_links_out_of_the_root_have_maps_but_no_photographs(attacked):
    client, _ = attacked
    for image_id in ("red/out.png", "away/magenta.png"):
        assert client.get("maps", id=image_id).json["whole"][0]["name"] == "magenta"
        photo = client.get("photo", id=image_id)
        assert (photo.status, "leads out of" in photo.message) == (404, True)
    assert client.get("photo", id="red/1.png").status == 200


def test_nothing_from_outside_is_served_and_nothing_breaks(attacked):
    client, images = attacked
    ids = [*client.site.reader.ids]
    statuses = Counter()
    for request, answer in send_all(client.url, requests(0, COUNT, ids, images)):
        assert SECRET not in answer, request
        assert b"root:x:" not in answer, request
        status = re.match(rb"HTTP/1\.1 (\d{3})", answer)
        assert status is None or int(status[1]) < 500, (request[:300], answer[:500])
        statuses[int(status[1]) if status else None] += 1
        assert b"\r\nx-injected" not in answer.lower(), request
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"image/jpeg" in head and body:
            colour = Image.open(io.BytesIO(body)).convert("RGB").getpixel((5, 5))
            assert max(abs(one - other) for one, other in zip(colour, SECRET_COLOUR, strict=True)) > 60, request
    assert client.get("healthz").status == 200
    assert min(statuses[status] for status in (200, 400, 404, 405, 422)) > 20, statuses  # all doors were tried
