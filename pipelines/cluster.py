"""A local Dask cluster: one process a GPU, or a few on the CPU's cores."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.utils import LoopRunner

from labelstore.errors import OptionError, RunError
from labelstore.pipelines import defaults

_CORES_A_WORKER = 4
# A forward pass takes and frees tens of megabytes a layer. glibc, by default and as Dask sets it, gives them back to the kernel
# and has them mapped anew, page by page: see the two bare loops in docs/benchmarks.md.
KEEP_THE_HEAP = {
    "MALLOC_MMAP_THRESHOLD_": 2**30,
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_TOP_PAD_": 2**26,
}
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3}
"""glibc's numbers of these settings (malloc.h)."""
_START_SECONDS = 120


@dataclass(frozen=True)
class Resources:
    """What a run may use of this machine. ``workers`` 0: no cluster, this process alone."""

    workers: int
    device: str
    threads: int
    decode_threads: int
    batch_size: int
    compiled: bool = False


def plan_resources(workers: int | None, device: str, batch_size: int | None, *, compiled: bool = False) -> Resources:
    """Return what a run uses: a worker a GPU, on the CPU a worker for every four cores, unless told; likewise the batch size.

    Raises
    ------
    OptionError
        ``cuda`` was asked for and there is none.
    """
    gpus = 0 if device == "cpu" else torch.cuda.device_count()  # asks the driver; starts no CUDA in this process
    if device.startswith("cuda") and not gpus:
        raise OptionError("--device cuda: no CUDA device is usable here; use --device cpu or auto")
    cores = len(os.sched_getaffinity(0))
    count = workers if workers is not None else gpus or max(1, cores // _CORES_A_WORKER)
    share = max(1, cores // max(count, 1))
    return Resources(
        workers=count,
        device="cuda" if gpus else "cpu",
        threads=share,
        decode_threads=min(max(share, 2), 16) if gpus else share,
        batch_size=batch_size or (defaults.CUDA_BATCH_SIZE if gpus else min(4 * share, defaults.CPU_BATCH_SIZE)),
        compiled=compiled,
    )


def keep_the_heap() -> None:
    """Give this process the settings that workers start with, where its C library has them; what the user has set is kept."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, number in _MALLOPT.items():
        if mallopt is not None and name not in os.environ:
            mallopt(number, KEEP_THE_HEAP[name])


@contextmanager
def local_cluster(resources: Resources) -> Iterator[Client]:
    """Start worker processes and yield a client; everything is gone afterwards.

    Raises
    ------
    RunError
        The workers do not come up.
    """
    environment = {**KEEP_THE_HEAP, "OMP_NUM_THREADS": resources.threads, "MKL_NUM_THREADS": resources.threads}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:8787"}}
    workers = {number: {"cls": Nanny, "options": _worker_options(number, resources)} for number in range(resources.workers)}
    with (
        warnings.catch_warnings(),
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
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
