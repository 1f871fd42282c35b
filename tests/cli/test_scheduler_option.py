"""`labelstore annotate --scheduler`: on a Dask cluster of processes that somebody else has started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from commands import command_line, environment, run_here, run_installed
from dask_cluster import SECONDS_TO_WAIT, Cluster, annotate_on, wait_until
from folders import store_contents
from pictures import paint

SLOW = ("--model", "unruly_annotators:slow", "--top-k", "3", "--batch-size", "4")
ALLERGIC = ("--model", "unruly_annotators:allergic", "--top-k", "3", "--batch-size", "4")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, tmp_path / "cluster")


@pytest.mark.parametrize("address", ["127.0.0.1", "what:ever:this", "post://127.0.0.1:8786", ""])
def test_what_is_no_address_is_refused_at_once(pictures, tmp_path, address):
    shown = run_here("annotate", pictures, "--store", tmp_path / "labels.zarr", "--scheduler", address)
    assert shown.code == 2
    assert f"--scheduler {address}: expected an address such as tcp://10.0.0.1:8786" in shown.message
    assert not (tmp_path / "labels.zarr").exists()


def test_workers_of_a_cluster_are_not_counted_out_here(pictures, tmp_path):
    shown = run_here("annotate", pictures, "--scheduler", "tcp://127.0.0.1:1", "--workers", 2)
    assert shown.code == 2
    assert "--workers starts workers here, --scheduler uses those of a cluster" in shown.message


@pytest.mark.slow
def test_nobody_answers(pictures, tmp_path):
    shown = run_installed("annotate", pictures, "--store", tmp_path / "labels.zarr", "--scheduler", "tcp://127.0.0.1:1")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("Error: --scheduler tcp://127.0.0.1:1: no Dask scheduler answers there within 10 s")
    assert len(shown.err.splitlines()) == 1


@pytest.mark.slow
def test_a_cluster_does_the_work_and_is_left_as_it_was(pictures, tmp_path, cluster):
    none = annotate_on(cluster, pictures, tmp_path / "labels.zarr", *SLOW)
    assert none.code == 1
    assert "there are no workers; start some with `dask worker tcp://127.0.0.1:" in none.err
    assert not (tmp_path / "labels.zarr").exists()
    workers = [cluster.start_worker(), cluster.start_worker()]
    done = annotate_on(cluster, pictures, tmp_path / "labels.zarr", *SLOW)
    assert done.code == 0, done.err
    assert "21 of 21 images annotated, 0 failed" in done.out
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    assert store_contents(tmp_path / "labels.zarr") == store_contents(tmp_path / "here.zarr")
    assert [process.poll() for process in (cluster.scheduler, *workers)] == [None, None, None]


def killed_midway(pictures: Path, store: Path, cluster: Cluster, victim: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Kill a process of the cluster when something is committed; return exit code and messages of the run."""
    command = command_line("annotate", pictures, "--store", store, "--scheduler", cluster.address, *SLOW)
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            wait_until(lambda: list(store.glob("commits/c.*")) or process.poll() is not None, "a shard is committed")
            os.kill(victim.pid, signal.SIGKILL)
            _, err = process.communicate(timeout=SECONDS_TO_WAIT)
        finally:
            process.kill()
    return process.returncode, err


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_run_in_words(pictures, tmp_path, cluster):
    cluster.start_worker()
    code, err = killed_midway(pictures, tmp_path / "labels.zarr", cluster, cluster.scheduler)
    assert code == 1
    lines = [line for line in err.splitlines() if not line.startswith("Dask dashboard")]
    assert lines == [
        "Error: the Dask scheduler went away. What is committed is kept: when it is back, run the same command again"
    ]
    again = run_here("annotate", pictures, "--store", tmp_path / "labels.zarr", "--workers", 0, *SLOW)
    assert again.code == 0  # the worker may still have been at work on its task
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    assert store_contents(tmp_path / "labels.zarr") == store_contents(tmp_path / "here.zarr")


@pytest.mark.slow
def test_a_nanny_that_is_killed_takes_its_worker_along_and_the_others_go_on(pictures, tmp_path, cluster):
    victim, _ = cluster.start_worker(), cluster.start_worker()
    code, err = killed_midway(pictures, tmp_path / "labels.zarr", cluster, victim)
    assert (code, "Traceback" in err) == (0, False)
    run_here("annotate", pictures, "--store", tmp_path / "here.zarr", "--workers", 0, *SLOW)
    assert store_contents(tmp_path / "labels.zarr") == store_contents(tmp_path / "here.zarr")


@pytest.mark.slow
def test_a_cluster_without_workers_is_left_after_the_timeout(pictures, tmp_path, cluster):
    worker = cluster.start_worker()
    command = ("--worker-timeout", "2", *SLOW)
    os.kill(worker.pid, signal.SIGSTOP)  # the nanny: it will not start another worker
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    assert children.exists()
    shown = subprocess.Popen(
        command_line("annotate", pictures, "--store", tmp_path / "labels.zarr", "--scheduler", cluster.address, *command),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list((tmp_path / "labels.zarr").glob("commits/c.*")) or shown.poll() is not None, "a commit")
    for child in Path(f"/proc/{worker.pid}/task").glob("*/children"):
        for pid in child.read_text().split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
    _, err = shown.communicate(timeout=SECONDS_TO_WAIT)
    assert shown.returncode == 1
    assert err.splitlines()[-1].startswith("Error: there has been no worker for 60 s. What is committed is kept")


@pytest.mark.slow
def test_a_hung_worker_without_a_nanny_ends_the_run_in_words(tmp_path, cluster):
    cluster.start_worker("--no-nanny")
    for number in range(12):
        paint(tmp_path / "images" / f"{number:02}.png", "cyan" if number == 5 else "red")
    shown = annotate_on(cluster, tmp_path / "images", tmp_path / "labels.zarr", "--worker-timeout", "2", *ALLERGIC)
    assert shown.code == 1
    assert "has made no progress for 2 s, and has no nanny that could end it" in shown.err.splitlines()[-1]
