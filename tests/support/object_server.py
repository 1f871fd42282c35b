"""A real S3 server on this machine: SeaweedFS, started in a folder and stopped again."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 60
_GRPC = 10_000
"""What SeaweedFS adds to a port for its other protocol."""


def find_server() -> str | None:
    """The program, where it is installed."""
    beside = Path(sysconfig.get_path("scripts"), "weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[str]:
    """Start a server that keeps its objects in a folder; yield its address."""
    program = find_server()
    assert program is not None
    master, volume, filer, s3 = _free_ports(4)
    ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3}
    options = [f"-{name}={port}" for name, port in ports.items()]
    command = [program, "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-master.volumeSizeLimitMB=64", *options]
    with (folder / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{s3}", server)
            yield f"http://127.0.0.1:{s3}"
        finally:
            server.kill()  # asked to end it takes its time, and what it holds is the test's


def _wait_until_it_answers(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"{address}/", timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code in (403, 404):  # it is there, and wants credentials
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"no answer from {address} in {_START_SECONDS} s")


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            one, other = (stack.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + _GRPC > 65535:
                continue
            try:
                other.bind(("127.0.0.1", port + _GRPC))
            except OSError:
                continue
            found.append(port)
    return found
