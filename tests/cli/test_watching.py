"""How a run is watched: lines of JSON, Prometheus, `info --watch`."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from commands import TOY, command_line, environment, run_here
from pictures import paint

from labelstore.cli.metrics import Metrics
from labelstore.errors import OptionError


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Eight pictures, one of which is none, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        paint(tmp_path / "images" / f"{number}.png", "red")
    (tmp_path / "images" / "7.png").write_text("no image")
    return tmp_path / "images"


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_log_of_json_tells_everything_and_nothing_else_comes_on_stderr(images):
    shown = run_here("annotate", images, *TOY, "--log-format", "json", "--json")
    told = events(shown.err)
    assert [event["event"] for event in told if event["event"] != "phase"] == ["plan", "rows", "finished"]
    assert all(event["time"].endswith("+00:00") for event in told)
    plan, rows, finished = told[-3:]
    assert (plan["rows"], plan["already"]) == (8, 0)
    assert (rows["done"], rows["failed"], rows["left"]) == (7, 1, 0)
    said = json.loads(shown.out)
    assert {key: finished[key] for key in said} == said
    assert said["failures"][0]["id"] == "7.png"


def test_an_error_is_an_event_too(images):
    run_here("annotate", images, *TOY)
    (images / "new.png").write_bytes((images / "0.png").read_bytes())
    shown = run_here("annotate", images, *TOY, "--log-format", "json")
    assert shown.code == 1
    assert events(shown.err.splitlines()[-2])[0]["event"] == "error"
    assert "--extend" in events(shown.err.splitlines()[-2])[0]["text"]


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def test_prometheus_gets_what_the_run_has_told():
    metrics = Metrics(0)
    try:
        metrics.plan(100, 40)
        time.sleep(0.1)
        metrics.rows(30, 2)
        metrics.written(1234)
        found = scrape(metrics.port)
    finally:
        metrics.close()
    assert found["labelstore_rows_planned"] == 100
    assert found["labelstore_rows_already"] == 40
    assert found["labelstore_bytes_written"] == 1234
    assert 0 < found["labelstore_images_per_second"] < 320
    assert found['labelstore_rows{status="done"}'] == 30
    assert found['labelstore_rows{status="failed"}'] == 2
    assert found["process_resident_memory_bytes"] > 1e6


def test_a_run_can_be_scraped_while_it_goes_on(images):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--model", "unruly_annotators:slow", "--workers", "0", "--log-format", "json", "--metrics-port", port)
    command = command_line("annotate", images, *options)
    with subprocess.Popen(
        command, env=environment(UNRULY_SECONDS_A_BATCH="1.5"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if json.loads(line)["event"] == "plan":
                break
        found = scrape(port)
        run.communicate()
    assert found["labelstore_rows_planned"] == 8
    assert run.returncode == 0


def test_a_port_that_is_taken(images):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"--metrics-port {port}: cannot be used"):
            Metrics(port)
        shown = run_here("annotate", images, *TOY, "--metrics-port", port)
    assert shown.code == 2
    assert not Path("labels.zarr").exists()


def test_info_watches_until_nothing_is_pending(images):
    run_here("annotate", images, *TOY)
    commit = Path("labels.zarr/commits/c.1.0.0")
    kept = commit.read_bytes()
    commit.unlink()
    timer = threading.Timer(1.0, commit.write_bytes, [kept])
    timer.start()
    shown = run_here("info", "--watch", "--every", "0.2")
    timer.join()
    assert shown.code == 0
    lines = shown.err.splitlines()
    assert len(lines) >= 3
    assert lines[0].startswith("4 of 8 done, 0 failed, 4 pending, ")
    assert "8: 7 done, 1 failed, 0 pending" in " ".join(shown.out.split())
