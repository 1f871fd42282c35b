"""`labelstore view` as its users start and end it; what it serves is tested in tests/cli/web."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from commands import command_line, environment, run_here


@contextmanager
def started(*arguments):
    """A running command, and the line that it prints when it serves."""
    command = command_line("view", *arguments, "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return int(error.code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_this_machine_until_it_is_interrupted(picture_store, number):
    with started(picture_store) as (process, url):
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)\?token=([\w-]{32,})", url)
        assert found is not None, url
        place, token = found.groups()
        assert status(place) == status(f"{place}api/healthz") == 401
        assert status(url) == status(f"{place}api/healthz", Authorization=f"Bearer {token}") == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert token not in err
    assert err.splitlines() == [f"Serving {picture_store} (21 images); Ctrl-C ends it.", "Ended."]


def test_other_machines_need_the_token_that_is_shown_once(picture_store):
    with started(picture_store, "--host", "0.0.0.0") as (process, url):
        found = re.fullmatch(r"(http://0\.0\.0\.0:\d+/)\?token=([\w-]{32,})", url)
        assert found is not None, url
        place, token = found.groups()
        assert status(f"{place}api/info") == 401
        assert status(f"{place}api/info", Authorization=f"Bearer {token}") == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Warning: 0.0.0.0 is reached from other machines" in err
    assert token not in err


def test_without_a_token_only_where_that_is_asked_for(picture_store):
    with started(picture_store, "--host", "127.0.0.2", "--no-token") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.2:\d+/", url)
        assert status(f"{url}api/healthz") == 200
        assert status(f"{url}api/healthz", Host="elsewhere.example") == 421
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Warning: --no-token: every user and every program of this machine" in err
    shown = run_here("view", picture_store, "--host", "0.0.0.0", "--no-token")
    assert (shown.code, "--no-token: only for this machine's own addresses" in shown.message) == (2, True)


def test_open_shows_a_private_page_so_that_no_process_has_the_token_as_an_argument(picture_store, tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments.new; mv {tmp_path}/arguments.new {tmp_path}/arguments\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with started(picture_store, "--open") as (process, url):
        while not (tmp_path / "arguments").exists():
            assert process.poll() is None
        page = Path(urlsplit((tmp_path / "arguments").read_text().strip()).path)
        assert (page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert f'url={url}"' in page.read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert not page.exists()


def test_photographs_are_looked_for_where_one_says(picture_store, pictures, tmp_path):
    with started(picture_store, "--images", tmp_path) as (_, url):
        assert status(url.replace("/?", "/api/photo?id=red/1.png&")) == 404
    with started(picture_store, "--images", pictures) as (_, url):
        assert status(url.replace("/?", "/api/photo?id=red/1.png&")) == 200


def test_what_cannot_be_served_is_said_in_a_line(picture_store, tmp_path):
    none = run_here("view", tmp_path / "none.zarr")
    assert (none.code, "no store here" in none.message) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shown = run_here("view", picture_store, "--port", port)
        assert (shown.code, f"--port {port}: cannot be used" in shown.message) == (2, True)
    elsewhere = run_here("view", picture_store, "--host", "192.0.2.1")
    assert (elsewhere.code, "--host 192.0.2.1" in elsewhere.message) == (2, True)
    nowhere = run_here("view", picture_store, "--host", "no such host")
    assert (nowhere.code, "cannot be used" in nowhere.message) == (2, True)


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "prometheus_client"])
def test_what_is_missing_is_named(picture_store, name):
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        f"sys.argv = ['labelstore', 'view', {str(picture_store)!r}]\n"
        "from labelstore.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'labelstore[view]'" in done.stderr


def test_it_starts_without_torch_and_dask(picture_store):
    code = (
        "import sys\nfrom labelstore.cli.web.serve import serving\nfrom labelstore.cli.web.site import Site\n"
        f"with serving(Site({str(picture_store)!r})) as url:\n"
        "    import urllib.request; urllib.request.urlopen(url + '/api/photo?row=1').read()\n"
        "print(sorted({'torch', 'dask', 'distributed', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
