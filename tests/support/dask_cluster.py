"""A Dask cluster of processes, each started on the command line, as its users start it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import unruly_annotators
from commands import Result, environment, run_installed

SECONDS_TO_WAIT = 90


def wait_until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS_TO_WAIT
    while not true():
        assert time.monotonic() < end, f"waited {SECONDS_TO_WAIT} s until {what}"
        time.sleep(0.05)


class Cluster:
    """A scheduler and its workers. They end with the stack.

    Parameters
    ----------
    folder
        For their logs; made if it is not there.
    host
        The scheduler's own address.
    prefix
        What the scheduler's command begins with: `ip netns exec ...`.
    protocol, options
        Of TLS, for the scheduler and for workers.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        host: str = "127.0.0.1",
        *,
        prefix: Sequence[str] = (),
        protocol: str = "tcp",
        options: Sequence[object] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._stack, self._folder, self._options = stack, folder, tuple(options)
        file = folder / "scheduler.json"
        more = ("--scheduler-file", file, "--dashboard-address", f"{host}:0", *options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"{protocol}://{host}:{port}"
        self.scheduler = self._start("scheduler", "--host", host, "--port", port, "--protocol", protocol, *more, prefix=prefix)
        wait_until(file.exists, "the scheduler listens")
        self.file = file

    def start_worker(
        self, *options: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        before = self.registered()
        own = () if prefix[:2] == ("ip", "netns") else ("--host", "127.0.0.1")
        options = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard", *own, *options)
        worker = self._start("worker", self.address, *options, *self._options, prefix=prefix, env=env)
        wait_until(lambda: self.registered() > before, "the worker is there")
        return worker

    def registered(self) -> int:
        """How many workers have ever come."""
        return (self._folder / "scheduler.log").read_text().count("Register worker")

    def _start(
        self, what: str, *options: object, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [*prefix, sys.executable, "-m", "dask", what, *map(str, options)]
        all_env = environment(**{unruly_annotators.SECONDS: "0.5"}) | dict(env or {})
        with (self._folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(command, env=all_env, stdout=log, stderr=log, cwd=self._folder)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


def annotate_on(cluster: Cluster, images: Path, store: object, *options: object) -> Result:
    return run_installed("annotate", images, "--store", store, "--scheduler", cluster.address, *options)
