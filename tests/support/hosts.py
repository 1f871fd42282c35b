"""Hosts of their own on this machine: network namespaces, joined by a bridge, made and removed by the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A host: what a command begins with to run there, and its address."""

    name: str
    address: str
    link: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def plug(self, state: str) -> None:
        """Pull the cable out ("down"), or put it in again ("up")."""
        _ip("link", "set", self.link, state)


def can_make_hosts() -> bool:
    """Whether this machine lets this user make them; tried, since containers differ."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with hosts(1):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Make hosts that reach each other and nothing else."""
    tag = f"{os.getpid() % 0xFFFF:x}"
    bridge, net = f"lb{tag}", f"10.{1 + os.getpid() % 200}.77"
    made = [Host(f"lsn{tag}-{number}", f"{net}.{number + 1}", f"lv{tag}-{number}") for number in range(count)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for host in made:
            _ip("netns", "add", host.name)
            _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", host.link, "master", bridge, "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", host.name)
            with suppress(subprocess.CalledProcessError):  # its other end may keep it for a moment
                _ip("link", "delete", host.link)
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", bridge)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
