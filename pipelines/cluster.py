"""Dask clusters: one on this machine, a process a GPU or a few on the CPU's cores; or one that the user has started."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.comm.addressing import get_address_host_port
from distributed.utils import LoopRunner, silence_logging_cmgr

from labelstore.errors import OptionError, RunError
from labelstore.pipelines.resources import Resources, worker_environment

# Silent workers are ended in `labelstore.pipelines.watchdog`, by a time that the user chooses. One that has died is looked for
# 15 s later by its name: if its successor has died as well and the next is just being started, that one is ended for good.
_NO_OTHER_TIMEOUT = {"distributed.scheduler.worker-ttl": None, "distributed.deploy.lost-worker-timeout": 10**9}
# Whatever else wakes a thread on the cores of a forward pass makes all of its threads wait for that one.
_SELDOM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}
# Dask keeps the last thousand messages of every connection, to be looked at: with them, the images' places of as many tasks.
_FEW_MESSAGES = {"distributed.admin.low-level-log-length": 10}
_TRIES = 3
"""Times that a task may be made because its worker died."""
_START_SECONDS, _CONNECT_SECONDS = 120, 10
_DASHBOARD_PORT = 8787


@contextmanager
def local_cluster(resources: Resources) -> Iterator[Client]:
    """Start worker processes and yield a client; everything is gone afterwards.

    Raises
    ------
    RunError
        The workers do not come up.
    """
    environment = worker_environment(resources)
    address = {"host": "127.0.0.1", "port": 0, "dashboard_address": _dashboard_address()}
    scheduler = {"cls": Scheduler, "options": {**address, "allowed_failures": _TRIES - 1}}
    workers = {number: {"cls": Nanny, "options": _worker_options(number, resources)} for number in range(resources.workers)}
    with (
        warnings.catch_warnings(),
        _no_variables_left(),
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment, **_SELDOM, **_NO_OTHER_TIMEOUT, **_FEW_MESSAGES}),
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
def remote_cluster(address: str) -> Iterator[Client]:
    """Connect to the scheduler of a cluster that somebody else started, and yield a client; the cluster is left as it is.

    Raises
    ------
    OptionError
        It is no address.
    RunError
        Nobody answers, or there are no workers.
    """
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise OptionError(f"--scheduler {address}: expected an address such as tcp://10.0.0.1:8786 ({error})") from error
    with silence_logging_cmgr(logging.CRITICAL), dask.config.set(_FEW_MESSAGES):
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            raise RunError(
                f"--scheduler {address}: no Dask scheduler answers there within {_CONNECT_SECONDS} s; start one with `dask "
                "scheduler`, which prints its address"
            ) from error
        with client:
            if not client.scheduler_info(n_workers=-1)["workers"]:
                raise RunError(f"--scheduler {address}: there are no workers; start some with `dask worker {address}`")
            yield client


def _dashboard_address() -> str:
    """Dask's usual port, or any if that is taken: Dask would find out itself, and leave a socket open over it."""
    with socket.socket() as usual:
        try:
            usual.bind(("127.0.0.1", _DASHBOARD_PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{_DASHBOARD_PORT}"


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
    with _warnings_of_children_off("ignore::UserWarning:multiprocessing.resource_tracker"):
        # Starting it later would unblock the signal. It warns of what a process that ends at once leaves it to clean up.
        resource_tracker.ensure_running()
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


@contextmanager
def _warnings_of_children_off(option: str) -> Iterator[None]:
    """Start Python processes with an option ``-W`` more."""
    sys.warnoptions.append(option)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)


def _worker_options(number: int, resources: Resources) -> dict[str, object]:
    env = {}
    if resources.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(torch.cuda.device_count())]
        env["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return {"nthreads": 1, "env": env, "silence_logs": logging.CRITICAL, "memory_limit": 0}
