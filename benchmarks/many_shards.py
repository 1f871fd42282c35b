"""What 100,000 shards cost: as many tasks through Dask, with an annotator that does nothing, and the store that they make.

A scheduler, workers and the client are processes of their own. Images are of 8x8 pixels, a shard is one image, and a task one
shard; the store is the real thing: encoded, checked, committed. Then it is opened and read by new processes.

python benchmarks/many_shards.py [--shards 100000] [--folder /dev/shm/many] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

CLASSES = 4
BATCH = 256
WORKERS = 2
WORKER_OPTIONS = ("--no-nanny", "--no-dashboard", "--memory-limit", "0")
NO_PROFILER = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
"""See docs/clusters.md: with it both workers were found in a deadlock, the second after 60,000 tasks."""


def nothing() -> Any:
    """A factory for `annotate --model`: the same logits for every image."""
    import torch
    from torch import Tensor, nn

    from labelstore.pipelines.annotators import Preprocessing

    class Nothing(nn.Module):
        def forward_dense(self, x: Tensor) -> Tensor:
            return torch.arange(CLASSES, dtype=torch.float32)[None, :, None, None].expand(len(x), -1, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.forward_dense(x).mean((2, 3))

    return Nothing(), Preprocessing(input_size=8, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")


def make_images(file: Path, count: int) -> None:
    """A tar file of so many pictures."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 30)).save(picture, "PNG")
    data = picture.getvalue()
    with tarfile.open(file, "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:08}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def client(images: str, store: str, address: str) -> None:
    """Annotate, one shard a task; print what it took."""
    from labelstore.pipelines import plan
    from labelstore.pipelines.annotate import annotate
    from labelstore.pipelines.observer import Observer
    from labelstore.pipelines.resources import ClusterAddress, resources_elsewhere
    from labelstore.pipelines.settings import Settings
    from labelstore.pipelines.sources import ImagesSpec

    plan.MOST_ROWS_A_TASK, plan.LEAST_ROWS_A_TASK = {"cpu": 1}, 1
    settings = Settings(model="many_shards:nothing", encoding="topk", top_k=2, shard_size=1)
    resources = resources_elsewhere(ClusterAddress(address), "cpu", 1)
    summary = annotate(ImagesSpec((images,)), store, settings, resources, Observer())
    print(json.dumps({"seconds": summary.seconds, "done": summary.counts.done, "CPU": time.process_time()}))


def reader(store: str) -> None:
    """Open the store and read a batch, by rows and by ids; print what it took."""
    import numpy as np

    from labelstore import LabelMapReader

    found: dict[str, float] = {}

    def timed(name: str, start: float) -> None:
        found[name] = time.perf_counter() - start

    start = time.perf_counter()
    labels = LabelMapReader(store, compiled=False)
    timed("open", start)
    rows = np.random.default_rng(0).integers(0, len(labels), BATCH)
    start = time.perf_counter()
    labels.read(rows)
    timed("first batch by rows", start)
    names = [f"{row:08}.png" for row in np.random.default_rng(1).integers(0, len(labels), BATCH).tolist()]
    start = time.perf_counter()
    labels.read(names)
    timed("first batch by ids", start)
    found["MB"] = psutil.Process().memory_full_info().uss / 2**20
    print(json.dumps(found))


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, psutil.Process]]]:
    """A scheduler and workers; their address, and the processes by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    commands = {"scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]}
    for number in range(WORKERS):
        commands[f"worker {number}"] = [
            "worker",
            address,
            "--host",
            "127.0.0.1",
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
        ]
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            run = [sys.executable, "-m", "dask", *command]
            process = stack.enter_context(subprocess.Popen(run, env=environment(), stdout=log, stderr=log, cwd=folder))
            stack.callback(process.kill)
            processes[name] = psutil.Process(process.pid)
        yield address, processes


def environment() -> Mapping[str, str]:
    """One in which this module is found."""
    return {
        **os.environ,
        **NO_PROFILER,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))),
    }


def in_new_process(call: str) -> tuple[dict[str, Any], float]:
    """What a call of this module prints, and the most megabytes that its process held."""
    code = f"import many_shards; many_shards.{call}"
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True) as process:
        peak = Peak({"": psutil.Process(process.pid)})
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(out), peak.stop()[""]


class Peak:
    """Looks every second at the memory that processes share with nobody."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes
        self._most = dict.fromkeys(processes, 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(1):
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.Error):
                    self._most[name] = max(self._most[name], process.memory_full_info().uss / 2**20)

    def stop(self) -> dict[str, float]:
        """Return the most megabytes of each."""
        self._over.set()
        self._thread.join()
        return self._most


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has worked so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(folder: Path, shards: int) -> dict[str, Any]:
    """Run, open and read."""
    images, store = folder / "images.tar", folder / "labels.zarr"
    make_images(images, shards)
    with cluster(folder) as (address, processes):
        time.sleep(10)
        before = {name: process.memory_full_info().uss / 2**20 for name, process in processes.items()}
        spent = {name: cpu_seconds(process) for name, process in processes.items()}
        peak = Peak(processes)
        run, most = in_new_process(f"client({str(images)!r}, {str(store)!r}, {address!r})")
        peaks = peak.stop()
        cpu = {"client": run.pop("CPU"), **{name: cpu_seconds(process) - spent[name] for name, process in processes.items()}}
    found: dict[str, Any] = {"shards": shards, **run, "milliseconds a shard": 1000 * run["seconds"] / shards}
    found["CPU milliseconds a shard"] = {name: 1000 * seconds / shards for name, seconds in cpu.items()}
    found["MB"] = {"client": most, **{name: f"{before[name]:.0f} -> {peaks[name]:.0f}" for name in peaks}}
    found["reader"], _ = in_new_process(f"reader({str(store)!r})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="Where to work, best in memory: 4 kB for each of 7 files a shard.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found = measure(Path(scratch), options.shards)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
