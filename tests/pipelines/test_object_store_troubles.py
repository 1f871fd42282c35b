"""Object stores in trouble: servers that are killed and come back, workers that die, credentials that are wrong."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import unruly_annotators
from commands import command_line, environment, run_here, run_installed
from dask_cluster import wait_until
from folders import store_contents, without_ids
from object_server import NEEDS_SERVER, ObjectServer, as_environment, make_bucket, object_server
from pictures import paint_many

from labelstore.pipelines.store_files import store_files
from labelstore.storage.documents import MOST_BYTES

pytestmark = [pytest.mark.slow, *NEEDS_SERVER]
SLOW = ("--model", "unruly_annotators:slow", "--top-k", "3", "--batch-size", "4", "--shard-size", "4")
IMAGES, KILLS, RESTARTS = 1200, 20, 5
SECONDS_AT_MOST = 500


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObjectServer]:
    (tmp_path / "objects").mkdir()
    with object_server(tmp_path / "objects", ("somebody", "secret")) as server, as_environment(server):
        make_bucket()
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return paint_many(tmp_path / "images", IMAGES)


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a run: its grandchildren's kind, that Dask's nannies spawn."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
        return [process for process in below if "spawn_main" in " ".join(process.cmdline())]
    except psutil.Error:
        return []


def trouble(run: subprocess.Popen[str], server: ObjectServer, chance: random.Random) -> tuple[int, int]:
    """Kill workers and the server at random times while the run goes on; return how often."""
    killed = restarted = 0
    end = time.monotonic() + SECONDS_AT_MOST
    while run.poll() is None and time.monotonic() < end:
        time.sleep(chance.uniform(4, 9))  # a worker needs some seconds to come back
        workers = workers_of(run)
        if killed < KILLS and workers:
            try:
                chance.choice(workers).kill()
                killed += 1
            except psutil.Error:
                continue
        if restarted < RESTARTS and killed >= 4 * restarted + 2:
            server.kill()
            time.sleep(chance.uniform(0, 3))
            server.start()
            restarted += 1
    return killed, restarted


def test_the_store_is_that_of_one_quiet_process(images, tmp_path, server):
    store = "s3://bucket/labels.zarr"
    command = command_line("annotate", images, "--store", store, "--workers", 2, *SLOW)
    env = environment(**{unruly_annotators.SECONDS: "1.0"})
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            files = store_files(store)
            wait_until(lambda: files.read("commits/c.0.0.0", MOST_BYTES) or run.poll() is not None, "a shard is committed")
            killed, restarted = trouble(run, server, random.Random(7))
            out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (killed, restarted) == (KILLS, RESTARTS), err
    assert run.returncode == 0, err
    assert f"{IMAGES} of {IMAGES} images annotated, 0 failed" in out
    run_here("annotate", images, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    found = {
        key: files.read(key, MOST_BYTES)
        for key in sorted(entry.name for entry in files.entries())
        if not key.endswith("zarr.json")
    }
    expected = {name: data for name, data in store_contents(tmp_path / "here.zarr").items() if not name.endswith("zarr.json")}
    assert without_ids(found) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody"), ("BUCKET", "somebody-elses")]
)
def test_what_cannot_be_written_is_told_before_any_work(pictures, server, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    bucket = value if name == "BUCKET" else "bucket"
    shown = run_installed("annotate", pictures, "--store", f"s3://{bucket}/labels.zarr", "--workers", 1, *SLOW)
    assert (shown.code, shown.out, "Traceback" in shown.err) == (1, "", False)
    assert len(shown.err.splitlines()) == 1, shown.err
    assert f"s3://{bucket}/labels.zarr: access is refused: " in shown.err
    assert "AWS_SECRET_ACCESS_KEY" in shown.err


def test_images_are_read_from_there_as_well(pictures, tmp_path, server):
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(str(pictures), "bucket/images", recursive=True)
    done = run_installed("annotate", "s3://bucket/images", "--store", "s3://bucket/labels.zarr", "--workers", 1, *SLOW)
    assert done.code == 0, done.err
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    files = store_files("s3://bucket/labels.zarr")
    for name, data in store_contents(tmp_path / "here.zarr").items():
        if name.startswith(("classes/c", "scores/c", "ids/c", "status/c")):
            assert files.read(name, MOST_BYTES) == data, name
