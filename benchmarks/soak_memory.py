"""How much memory the processes of a run take at most: the client's must not grow with the number of shards."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from soak_setups import Processes, annotate, workers_of

_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Peak:
    """Of a run of so many images and shards: most bytes of the client and of the worker; own: those that are no files'."""

    what: str
    images: int
    shards: int
    client: int
    client_own: int
    worker: int
    worker_own: int


def peak(what: str, images: Path, folder: Path, shard_size: int, *options: object) -> Peak:
    """Run the command with one worker, and watch both processes."""
    store, processes = folder / "memory.zarr", Processes(folder, seconds_a_batch=0)
    shutil.rmtree(store, ignore_errors=True)
    count = sum(1 for file in images.rglob("*") if file.is_file())
    choices = ("--workers", 1, "--shard-size", shard_size, *options)
    run = annotate(processes, images, store, *choices, log="memory.log")
    seen: dict[tuple[str, str], int] = defaultdict(int)
    while run.poll() is None:
        for who, number in (("client", run.pid), *(("worker", worker) for worker in workers_of(run.pid))):
            for name, size in memory_of(number).items():
                seen[who, name] = max(seen[who, name], size)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, run.args, (folder / "memory.log").read_text())
    sizes = [seen[who, name] for who in ("client", "worker") for name in ("VmHWM", "RssAnon")]
    return Peak(what, count, -(-count // shard_size), *sizes)


def memory_of(number: int) -> dict[str, int]:
    """Bytes of a process as Linux counts them: the most that it has had (VmHWM), and those that are no files' (RssAnon)."""
    with contextlib.suppress(OSError):
        lines = (line.split() for line in Path(f"/proc/{number}/status").read_text().splitlines())
        return {line[0].rstrip(":"): 1024 * int(line[1]) for line in lines if line[0] in ("VmHWM:", "RssAnon:")}
    return {}


def copies(picture: Path, folder: Path, counts: Collection[int]) -> dict[int, Path]:
    """Folders of so many copies of a picture."""
    found = {}
    for count in counts:
        found[count] = folder / f"{count}-images"
        found[count].mkdir()
        for number in range(count):
            (found[count] / f"{number:06}.png").hardlink_to(picture)
    return found
