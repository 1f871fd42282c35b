"""A cluster of several hosts, each a network namespace of its own: one dies, one comes, one is cut off for a while."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import unruly_annotators
from commands import command_line, environment, run_here
from dask_cluster import SECONDS_TO_WAIT, Cluster, wait_until
from folders import store_contents
from hosts import can_make_hosts, hosts
from pictures import paint_many

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_hosts(), reason="this machine lets nobody make network namespaces"),
]
SLOW = ("--model", "unruly_annotators:slow", "--top-k", "3", "--batch-size", "4", "--shard-size", "4")
CUT_OFF_SECONDS = 20
IMAGES = 400


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return paint_many(tmp_path / "images", IMAGES)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def committed(store: Path) -> int:
    return len(list(store.glob("commits/c.*")))


def test_the_store_is_that_of_one_process(images, tmp_path, stack):
    client, *others = stack.enter_context(hosts(6))
    cluster = Cluster(stack, tmp_path / "cluster", client.address, prefix=client.prefix)
    slow = {unruly_annotators.SECONDS: "1.5"}
    first, *_ = [cluster.start_worker(prefix=host.prefix, env=slow) for host in others[:4]]
    store = tmp_path / "labels.zarr"
    annotate = command_line("annotate", images, "--store", store, "--scheduler", cluster.address, *SLOW)
    command = [*client.prefix, *annotate]
    run = stack.enter_context(
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    stack.callback(run.kill)
    wait_until(lambda: committed(store) > 4 or run.poll() is not None, "some shards are committed")
    others[1].plug("down")
    began = time.monotonic()
    os.kill(first.pid, signal.SIGKILL)  # the nanny; its worker ends with it
    cluster.start_worker(prefix=others[4].prefix, env=slow)
    time.sleep(max(CUT_OFF_SECONDS - (time.monotonic() - began), 0))
    assert run.poll() is None, "the run was over before the cable was in again"
    others[1].plug("up")
    out, err = run.communicate(timeout=SECONDS_TO_WAIT)
    assert run.returncode == 0, err
    assert f"{IMAGES} of {IMAGES} images annotated, 0 failed" in out
    assert "Traceback" not in err
    assert err.count("without TLS, any program that reaches this cluster's ports can run code on its workers") == 1
    shutil.rmtree(tmp_path / "cluster", ignore_errors=True)
    run_here("annotate", images, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    assert store_contents(store) == store_contents(tmp_path / "here.zarr")
