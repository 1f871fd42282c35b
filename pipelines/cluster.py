"""A local Dask cluster: one process a GPU, or a few on the CPU's cores."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.utils import LoopRunner

from labelstore.errors import RunError
from labelstore.pipelines.resources import Resources, worker_environment

# Whatever else wakes a thread on the cores of a forward pass makes all of its threads wait for that one.
_SELDOM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}
_START_SECONDS = 120


@contextmanager
def local_cluster(resources: Resources) -> Iterator[Client]:
    """Start worker processes and yield a client; everything is gone afterwards.

    Raises
    ------
    RunError
        The workers do not come up.
    """
    environment = worker_environment(resources)
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:8787"}}
    workers = {number: {"cls": Nanny, "options": _worker_options(number, resources)} for number in range(resources.workers)}
    with (
        warnings.catch_warnings(),
        _no_variables_left(),
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment, **_SELDOM}),
        _loop_deaf_to_interrupts() as loop,
    ):
        warnings.filterwarnings("ignore", message="Port .* is already in use")  # another is taken, and its address shown
        with (
            SpecCluster(scheduler=scheduler, workers=workers, loop=loop, silence_logs=logging.CRITICAL) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            try:
                client.wait_for_workers(resources.workers, timeout=_START_SECONDS)
            except TimeoutError as error:
                raise RunError(f"{resources.workers} worker processes did not start in {_START_SECONDS} s") from error
            yield client


@contextmanager
def _no_variables_left() -> Iterator[None]:
    """Take new environment variables back: Dask leaves its workers' in this process, where the next ones would find them."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]


@contextmanager
def _loop_deaf_to_interrupts() -> Iterator[Any]:
    """An event loop whose thread blocks SIGINT. Workers inherit that: Ctrl-C reaches this process, which ends them, and is
    not answered by a traceback from each of them."""
    resource_tracker.ensure_running()  # multiprocessing's: starting it later would unblock the signal
    runner = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def _worker_options(number: int, resources: Resources) -> dict[str, object]:
    env = {}
    if resources.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(torch.cuda.device_count())]
        env["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return {"nthreads": 1, "env": env, "silence_logs": logging.CRITICAL, "memory_limit": 0}
