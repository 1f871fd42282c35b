"""The two ways in which the processes of a run are spread, to be killed one by one: what each kind of process is, and what an
operator does when it is gone.

Every process that a soak starts, and every one that these start, has a mark in its environment: by it all of them are found,
whoever has become their parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
from commands import command_line, environment
from distributed import Client
from unruly_annotators import SECONDS

_MARK = "SOAK_PROCESS"
_STARTING = 120.0
SECONDS_A_BATCH = 0.06
"""75 shards of a batch each by two workers: some seconds."""
Command = subprocess.Popen[str]


class Processes:
    """What is started with one mark."""

    def __init__(self, folder: Path, seconds_a_batch: float = SECONDS_A_BATCH) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        self._environment = environment(**{_MARK: self._mark, SECONDS: str(seconds_a_batch)})

    def start(self, *command: object, log: str) -> Command:
        """Start a command; what it prints goes to a file of that name."""
        with (self.folder / log).open("w") as out:
            return subprocess.Popen(
                [str(part) for part in command], cwd=self.folder, env=self._environment, stdout=out, stderr=out, text=True
            )

    def left(self) -> list[psutil.Process]:
        """Those that are still there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._mark:
                    found.append(process)
        return found

    def wait_until_gone(self, seconds: float) -> list[psutil.Process]:
        """Return those that are still there after that time."""
        end = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def end_all(self) -> None:
        """Kill what is left."""
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.wait_until_gone(30)


class Local:
    """`annotate --workers 2`: one process is client, scheduler and both nannies; the workers are its children."""

    name = "one command"
    kinds = ("worker", "client")
    options: tuple[object, ...] = ("--workers", 2)
    alone = True
    """Whether nobody writes to the store when the command has ended."""

    def __init__(self, folder: Path) -> None:
        pass

    def victims(self, kind: str, client: Command) -> list[int]:
        """The processes of that kind, by their ids."""
        return [client.pid] if kind == "client" else workers_of(client.pid)

    def mend(self, kind: str, number: int, *, leave_old: bool) -> None:
        """Do what an operator does after a kill: nothing here, the nannies start their workers again."""

    def close(self) -> list[str]:
        """End what belongs to no run; return what would not end."""
        return []


class Separate:
    """`dask scheduler`, two `dask worker`s (a nanny and its child each) and `annotate --scheduler`, all separate processes."""

    name = "separate processes"
    kinds = ("worker", "nanny", "scheduler", "client")
    alone = False

    def __init__(self, folder: Path) -> None:
        self._processes = Processes(folder)
        self._nannies: list[Command] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.options: tuple[object, ...] = ("--scheduler", f"tcp://127.0.0.1:{self._port}")
        self._start_scheduler()
        self._start_workers()

    def victims(self, kind: str, client: Command) -> list[int]:
        """The processes of that kind, by their ids."""
        if kind == "client":
            return [client.pid]
        if kind == "scheduler":
            return [self._scheduler.pid]
        if kind == "nanny":
            return [nanny.pid for nanny in self._nannies]
        return [pid for nanny in self._nannies for pid in workers_of(nanny.pid)]

    def mend(self, kind: str, number: int, *, leave_old: bool) -> None:
        """Do what an operator does after a kill. ``leave_old``: workers whose scheduler is gone are left to themselves."""
        if kind == "nanny":
            self._nannies = [nanny for nanny in self._nannies if nanny.pid != number]
        if kind == "scheduler":
            self._scheduler.wait()
            for nanny in self._nannies if not leave_old else ():
                nanny.send_signal(signal.SIGTERM)
            self._nannies = []
            self._start_scheduler()
        if kind in ("nanny", "scheduler"):
            self._start_workers()

    def close(self) -> list[str]:
        """End the cluster; return what would not end."""
        for process in (*self._nannies, self._scheduler):
            process.send_signal(signal.SIGTERM)
        left = [" ".join(process.cmdline()) for process in self._processes.wait_until_gone(60)]
        self._processes.end_all()
        return left

    def _start_scheduler(self) -> None:
        options = ("--host", "127.0.0.1", "--port", self._port, "--no-dashboard")
        self._scheduler = self._start("scheduler", *options)

    def _start_workers(self) -> None:
        """Fill up to two, and wait until they are there."""
        while len(self._nannies) < 2:
            own = ("--host", "127.0.0.1", "--local-directory", self._processes.folder)
            options = ("--nthreads", 1, "--no-dashboard", "--memory-limit", 0, *own)
            self._nannies.append(self._start("worker", f"tcp://127.0.0.1:{self._port}", *options))
        with Client(f"tcp://127.0.0.1:{self._port}", timeout=_STARTING, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=_STARTING)

    def _start(self, *command: object) -> Command:
        log = f"{command[0]}-{uuid.uuid4().hex[:8]}.log"
        return self._processes.start(sys.executable, "-m", "dask", *command, log=log)


def workers_of(parent: int) -> list[int]:
    """Worker processes among a process's children."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child.pid)
    return found


def annotate(processes: Processes, images: Path, store: Path, *options: object, log: str) -> Command:
    """Start the real command."""
    return processes.start(*command_line("annotate", images, "--store", store, *options), log=log)


def kill(number: int) -> bool:
    """Kill a process; return whether it was there."""
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
