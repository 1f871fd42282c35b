"""Starts a compose file's services without Docker: each as it would be in its container, but on one network of one address."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import chroot
import yaml
from dockerfile import Image

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_WAIT_SECONDS = 120


def load(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Read a compose file, variables filled in as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise SystemExit(f"{path}: {name}: {rest}")
        return rest or ""

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: fill(item) for key, item in node.items()}
        if isinstance(node, list):
            return [fill(item) for item in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    found: dict[str, Any] = fill(yaml.safe_load(path.read_text()))
    return found


@dataclass(frozen=True)
class Foreign:
    """A service of somebody else's image: its program, of this machine, stands for the image's entry point."""

    image: Image
    entrypoint: tuple[str, ...]


class Services:
    """Runs services in the order of their `depends_on`, with their health checks; all end with the stack.

    Parameters
    ----------
    images
        What each service's image is here, by the image's name without its tag.
    volumes
        A folder for each named volume.
    network
        The process id of one in the network that all share.
    logs
        Where what the services print is kept.
    """

    def __init__(
        self,
        services: Mapping[str, Any],
        images: Mapping[str, Foreign],
        volumes: Mapping[str, Path],
        network: int,
        hosts: Path,
        logs: Path,
        stack: contextlib.ExitStack,
        tell: Callable[[str], object] = print,
    ):
        self._services, self._images, self._volumes = services, images, volumes
        self._network, self._hosts, self._logs, self._stack, self._tell = network, hosts, logs, stack, tell
        self._up: set[str] = set()

    def finish(self, name: str) -> str:
        """Start what a service waits for, run the service to its end, and return what it printed."""
        place, command, _ = self._prepare(name)
        done = chroot.run(place, command, stdout=subprocess.PIPE, stderr=(self._logs / f"{name}.log").open("w"))
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}; see {self._logs / f'{name}.log'}")
        self._tell(f"{name}: finished")
        return str(done.stdout)

    def _start(self, name: str) -> None:
        """Start a service, and wait until its health check succeeds."""
        place, command, check = self._prepare(name)
        log = self._stack.enter_context((self._logs / f"{name}.log").open("w"))
        process = self._stack.enter_context(chroot.started(place, command, stdout=log, stderr=log))
        end = time.monotonic() + _WAIT_SECONDS
        while (found := chroot.run(place, check, stdout=subprocess.PIPE, stderr=subprocess.PIPE)).returncode:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name}: never healthy: {found.stderr or found.stdout}; see {self._logs / f'{name}.log'}")
            time.sleep(1)
        self._tell(f"{name}: healthy")

    def _prepare(self, name: str) -> tuple[chroot.Place, list[str], list[str]]:
        service = self._services[name]
        for other, wanted in service.get("depends_on", {}).items():
            if other not in self._up:
                self._finish_or_start(other, wanted["condition"])
                self._up.add(other)
        found = self._images[service["image"].partition(":")[0]]
        environment = {**found.image.environment, **service.get("environment", {})}
        mounts, writable = {"/etc/hosts": self._hosts}, set()
        for source, target, *mode in (volume.split(":") for volume in service.get("volumes", ())):
            mounts[target] = self._volumes.get(source, Path(source))
            if "ro" not in mode:
                writable.add(target)
        own = found.image.place()
        variables = {**own.environment, **environment}
        place = replace(own, environment=variables, mounts=mounts, writable=frozenset(writable), network=self._network)
        command = [*service.get("entrypoint", found.entrypoint), *service.get("command", ())]
        check = service.get("healthcheck", {}).get("test", ["CMD", *found.image.healthcheck])
        return place, command, check[1:]

    def _finish_or_start(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            self.finish(name)
        elif condition == "service_healthy":
            self._start(name)
        else:
            raise SystemExit(f"{name}: {condition}: not known here")


def hosts_file(path: Path, names: list[str]) -> Path:
    """Write a hosts file in which all services are at one address."""
    path.write_text(f"127.0.0.1 localhost {os.uname().nodename} {' '.join(names)}\n")
    return path
