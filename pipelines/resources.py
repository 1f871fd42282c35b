"""What a run may use of this machine: workers, threads, batches, and how processes keep memory and wait for each other."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from labelstore.errors import OptionError
from labelstore.pipelines import defaults
from labelstore.threads import usable_cores

_CORES_A_WORKER, _MOST_DECODERS = 4, 16
_LEAST_THREADS = 2
"""With one, torch's convolutions of 1x1 take a path that is half as fast on a CPU."""
# A forward pass takes and frees tens of megabytes a layer. glibc, by default and as Dask sets it, gives them back to the kernel
# and has them mapped anew, page by page: see the two kinds of bare loops in docs/benchmarks.md. The one arena is the main one:
# a thread's own has room for 64 MB at once.
KEEP_THE_HEAP = {
    "MALLOC_MMAP_THRESHOLD_": 2**30,
    "MALLOC_TRIM_THRESHOLD_": 2**30,
    "MALLOC_TOP_PAD_": 2**26,
    "MALLOC_ARENA_MAX": 1,
}
# Between forward passes images are decoded: the threads of one that is over must not spin for long on the cores that do. Where
# workers have more threads than there are cores, who spins takes the core from whom he waits for.
SPIN_BRIEFLY, SPIN_NEVER = {"GOMP_SPINCOUNT": 30_000}, {"GOMP_SPINCOUNT": 0}
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_ARENA_MAX": -8}
"""glibc's numbers of these settings (malloc.h)."""


@dataclass(frozen=True)
class ClusterAddress:
    """Where a Dask scheduler is that the user has started, and the files (PEM) with which one speaks to it over TLS."""

    scheduler: str
    ca_file: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class WorkerFacts:
    """A worker of a cluster that the user has started: its host, the cores and the CUDA devices that it may use."""

    host: str
    cores: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Resources:
    """What a run may use. ``workers`` 0: no cluster, this process alone.

    ``cluster`` is one that the user has started, whose workers are used; ``worker_timeout`` the seconds after which a worker
    that has a task and makes no progress is ended, 0 for never.
    """

    workers: int
    device: str
    threads: int
    decode_threads: int
    batch_size: int
    compiled: bool = False
    cluster: ClusterAddress | None = None
    worker_timeout: float = defaults.WORKER_TIMEOUT


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
    cores = usable_cores()
    count = workers if workers is not None else gpus or max(1, cores // _CORES_A_WORKER)
    asked = Resources(count, device, threads=0, decode_threads=0, batch_size=batch_size or 0, compiled=compiled)
    return _shared_out(asked, count, _share(cores, count), on_gpu=bool(gpus))


def resources_elsewhere(cluster: ClusterAddress, device: str, batch_size: int | None, *, compiled: bool = False) -> Resources:
    """Return what a run on somebody's cluster may use, as far as it is known before its workers are: see `settle`."""
    asked = Resources(0, device, threads=0, decode_threads=0, batch_size=batch_size or 0, compiled=compiled)
    return replace(asked, cluster=cluster)


def settle(asked: Resources, workers: Mapping[str, WorkerFacts]) -> Resources:
    """Return what a run on somebody's cluster uses: on each worker the same, so that all make the same bytes.

    Parameters
    ----------
    workers
        By address.

    Raises
    ------
    OptionError
        Some have a CUDA device and some do not, or ``cuda`` was asked for and there are some without.
    """
    without = [address for address, facts in workers.items() if not facts.gpus]
    some = f"{len(without)} of {len(workers)} workers have no CUDA device that they can use ({', '.join(without[:3])})"
    if asked.device.startswith("cuda") and without:
        raise OptionError(f"--device cuda: {some}; use --device cpu or auto, or workers that have one")
    if asked.device == "auto" and 0 < len(without) < len(workers):
        raise OptionError(f"{some}, the others have: what they make would differ. Use --device cpu, or workers that are alike")
    neighbours = Counter(facts.host for facts in workers.values())
    share = min(_share(facts.cores, neighbours[facts.host]) for facts in workers.values())
    return _shared_out(asked, len(workers), share, on_gpu=asked.device != "cpu" and not without)


def _shared_out(asked: Resources, workers: int, share: int, on_gpu: bool) -> Resources:
    """What was asked for, on so many workers with so many cores each."""
    usual = defaults.CUDA_BATCH_SIZE if on_gpu else min(8 * share, defaults.CPU_BATCH_SIZE)
    return replace(
        asked,
        workers=workers,
        device="cuda" if on_gpu else "cpu",
        threads=share,
        decode_threads=min(share, _MOST_DECODERS) if on_gpu else share,
        batch_size=asked.batch_size or usual,
    )


def _share(cores: int, workers: int) -> int:
    """The threads that each of so many workers on these cores has."""
    return max(min(_LEAST_THREADS, cores), cores // max(workers, 1))


def worker_environment(resources: Resources) -> dict[str, object]:
    """Return the environment variables that workers start with."""
    crowded = resources.workers * resources.threads > usable_cores()
    threads = {"OMP_NUM_THREADS": resources.threads, "MKL_NUM_THREADS": resources.threads}
    return {**KEEP_THE_HEAP, **(SPIN_NEVER if crowded else SPIN_BRIEFLY), **threads}


def keep_the_heap() -> None:
    """Give this process the settings that workers start with, where its C library has them; what the user has set is kept."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, number in _MALLOPT.items():
        if mallopt is not None and name not in os.environ:
            mallopt(number, KEEP_THE_HEAP[name])
