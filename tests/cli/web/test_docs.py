"""What docs/viewing.md shows of clients works as it stands, but for the port and the token."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from web_client import client_of

from labelstore.cli.web.guard import Rules
from labelstore.cli.web.serve import serving
from labelstore.cli.web.site import Site

TOKEN = "a-token-of-this-test"
PAGE = Path(__file__).parents[3] / "docs" / "viewing.md"


def block(language: str, holding: str) -> str:
    """A piece of code of the page."""
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL) if holding in code)


@pytest.fixture(scope="module")
def locked(picture_store):
    """A server that wants the token."""
    site = Site(str(picture_store))
    with serving(site, Rules(token=TOKEN)) as url:
        yield client_of(url, site, authorization=f"Bearer {TOKEN}")


def here(code: str, client) -> str:
    code = code.replace("http://127.0.0.1:8765", client.url).replace("export TOKEN=...", f"export TOKEN={TOKEN}")
    return code.replace("chelsea.png", "blue/0.png").replace("coffee.png", "red/1.png")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_client_in_curl(locked, tmp_path):
    done = subprocess.run(
        ["bash", "-ec", here(block("sh", "curl"), locked)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert '"name":"blue"' in done.stdout
    expected = locked.site.reader.pool(["blue/0.png", "red/1.png"], [[0, 0, 0.5, 1], [0.2, 0.1, 0.9, 0.8]])
    np.testing.assert_array_equal(np.load(tmp_path / "soft.npy"), expected)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_the_client_in_javascript(locked, tmp_path):
    (tmp_path / "client.mjs").write_text(here(block("js", "fetch"), locked))
    done = subprocess.run(
        ["node", "client.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "TOKEN": TOKEN}
    )
    assert done.stdout.split() == ["1", "4"]  # one label, of blue


def test_every_endpoint_is_in_the_table(locked):
    text = PAGE.read_text()
    for path in locked.get("openapi.json").json["paths"]:
        assert path in text, path
