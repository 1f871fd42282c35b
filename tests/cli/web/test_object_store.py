"""A store on a real S3 server in the viewer, by the command that docker/compose.yaml runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import command_line, environment
from object_server import NEEDS_SERVER, as_environment, make_bucket, object_server
from runs import SERIAL

from labelstore import LabelMapReader
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.settings import Settings

pytestmark = NEEDS_SERVER
COMPOSE = Path(__file__).parents[3] / "docker" / "compose.yaml"
TOKEN = "0123456789abcdef"
STORE = "s3://bucket/labels.zarr"


@pytest.fixture(scope="module")
def on_server(tmp_path_factory, pictures):
    """The store there, and a copy of its photographs."""
    with object_server(tmp_path_factory.mktemp("objects")) as server, as_environment(server):
        make_bucket()
        images = Path(shutil.copytree(pictures, tmp_path_factory.mktemp("images") / "images"))
        annotate(images, STORE, Settings(model="toy_annotators:colours", top_k=3), SERIAL, Observer())
        yield images


def compose_command(images: Path) -> list[str]:
    """The viewer's command out of the Compose file, on a port of this machine that is free."""
    words = yaml.safe_load(COMPOSE.read_text())["services"]["viewer"]["command"]
    places = {"s3://${BUCKET:-labels}/labels.zarr": STORE, "/images": str(images)}
    return [places.get(word, word) for word in words] + ["--port", "0"]


def test_the_viewers_service_shows_a_store_on_an_object_server(on_server, tmp_path):
    command = command_line(*compose_command(on_server))
    more = environment() | {"LABELSTORE_VIEW_TOKEN": TOKEN, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=more) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(rf"http://0\.0\.0\.0:(\d+)/\?token={TOKEN}\n", process.stdout.readline())
            assert found is not None

            def ask(path: str, body: bytes | None = None) -> bytes:
                url = f"http://127.0.0.1:{found[1]}{path}"
                request = urllib.request.Request(url, body, {"authorization": f"Bearer {TOKEN}"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return bytes(answer.read())

            soft = np.frombuffer(
                ask("/api/pool?format=raw", b'{"rows": [3, 20], "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 1]]}'), "<f4"
            )
            expected = LabelMapReader(STORE).pool([3, 20], [[0, 0, 1, 1], [0, 0, 0.5, 1]])
            np.testing.assert_allclose(soft.reshape(2, -1), expected, atol=1e-6)
            assert ask("/api/photo?row=3").startswith(b"\xff\xd8")
            while b'"finished":true' not in ask("/api/survey"):
                assert process.poll() is None
            assert b'"rows":21' in ask("/api/survey")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert list((tmp_path / "labelstore" / "survey").glob("*.npz"))
