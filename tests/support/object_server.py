"""A real S3 server on this machine: SeaweedFS, started in a folder and stopped again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from slow_line import SlowLine

_PROGRAM = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
_START_SECONDS = 60
_ACTIONS = [f"{action}:bucket" for action in ("Admin", "Read", "Write", "List", "Tagging")]
NEEDS_SERVER = [
    pytest.mark.skipif(_PROGRAM is None or find_spec("s3fs") is None, reason="no SeaweedFS, or no s3fs"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # s3fs leaves its connections to the end of the process
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Marks of tests with a server."""
_SET_ASIDE: list[object] = []
_GRPC = 10_000
"""What SeaweedFS adds to a port for its other protocol."""


class ObjectServer:
    """A server that keeps its objects in a folder. Killed and started again it is at the same address, with the same objects.

    Parameters
    ----------
    credentials
        Key id and secret that requests must be signed with, for a bucket named "bucket"; without them everybody is let in.
    """

    def __init__(self, folder: Path, credentials: tuple[str, str] | None = None) -> None:
        assert _PROGRAM is not None
        master, volume, filer, s3 = _free_ports(4)
        ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3}
        ports.update({"s3.port.lance": 0, "s3.port.iceberg": 0})  # else fixed ones: a second server would end at once
        options = [f"-{name}={port}" for name, port in ports.items()]
        if credentials is not None:
            key, secret = credentials
            rights = {"name": "user", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": _ACTIONS}
            (folder / "s3.json").write_text(json.dumps({"identities": [rights]}))
            options.append(f"-s3.config={folder / 's3.json'}")
        self.address = f"http://127.0.0.1:{s3}"
        self._folder = folder
        self._command = [_PROGRAM, "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-master.volumeSizeLimitMB=64", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder)
        _wait_until_it_answers(self.address, self._process)

    def kill(self) -> None:
        """End it: asked to end it takes its time, and what it holds is the test's."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def object_server(folder: Path, credentials: tuple[str, str] | None = None) -> Iterator[ObjectServer]:
    """Start a server; it is gone afterwards."""
    server = ObjectServer(folder, credentials)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def as_environment(server: ObjectServer | SlowLine, key: str = "somebody", secret: str = "secret") -> Iterator[None]:
    """Credentials, region and address stand in the environment, as users give them; clients are made anew, and afterwards."""
    _set_clients_aside()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.address)
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            yield
        finally:
            _set_clients_aside()


def make_bucket() -> None:
    """Make a bucket, named "bucket", on the server of the environment."""
    from s3fs import S3FileSystem

    S3FileSystem().mkdir("bucket")


def _set_clients_aside() -> None:
    """Have new clients made from now on; the old ones, whose connections nobody closes, live as long as the process."""
    from s3fs import S3FileSystem

    _SET_ASIDE.extend(S3FileSystem._cache.values())
    S3FileSystem.clear_instance_cache()


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
