"""Commands in a folder as their whole file system, with mounts and a network of their own: all of it ends with the command."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SYSTEM = ("/proc", "/sys", "/dev")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Place:
    """A file system, and what a command finds in it.

    ``mounts``: folders and files of this machine by where they are seen, read-only unless in ``writable``. ``network``: the
    process id of one whose network is used, None for this machine's, 0 for none at all.
    """

    root: Path
    user: str = "0:0"
    folder: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    writable: frozenset[str] = frozenset()
    network: int | None = None


@contextlib.contextmanager
def started(place: Place, command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a place; it is ended, with all that it started, when nobody waits for it any more."""
    with _mount_points(place), subprocess.Popen(_in_place(place, command), text=True, **options) as process:
        try:
            yield process
        finally:
            _end(process)


def run(place: Place, command: Sequence[str], *, check: bool = False, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a place to its end."""
    with started(place, command, **options) as process:
        out, err = process.communicate()
    if check and process.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit code {process.returncode}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the first process of its namespace, with which all others there end; `unshare` itself ends after that."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for first in psutil.Process(process.pid).children():
            first.kill()
    process.wait()


def _in_place(place: Place, command: Sequence[str]) -> list[str]:
    steps = [f"mount --rbind {name} {place.root}{name}" for name in _SYSTEM if name != "/proc"]
    steps.append(f"mount -t proc proc {place.root}/proc")
    for target, source in place.mounts.items():
        where = shlex.quote(f"{place.root}{target}")
        steps.append(f"mount --bind {shlex.quote(str(source))} {where}")
        if target not in place.writable:
            steps.append(f"mount -o remount,bind,ro {where}")
    variables = [f"{name}={value}" for name, value in {"PATH": PATH, **place.environment}.items()]
    inside = ["chroot", f"--userspec={place.user}", str(place.root), "env", "-i", *variables]
    go = ["/bin/sh", "-c", f'cd {shlex.quote(place.folder)} && exec "$@"', "sh", *command]
    script = " && ".join([*steps, f"exec {shlex.join([*inside, *go])}"])
    own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]
    if place.network == 0:
        own.append("--net")
        script = f"ip link set lo up; {script}"
    other = ["nsenter", f"--net=/proc/{place.network}/ns/net"] if place.network else []
    return [*other, *own, "sh", "-c", script]


@contextlib.contextmanager
def _mount_points(place: Place) -> Iterator[None]:
    """What is mounted over has to be there: made before, and gone afterwards if it was made."""
    made = []
    for target, source in place.mounts.items():
        point = Path(f"{place.root}{target}")
        missing = [folder for folder in (point, *point.parents) if not folder.exists()]
        if source.is_dir():
            point.mkdir(parents=True, exist_ok=True)
        else:
            point.parent.mkdir(parents=True, exist_ok=True)
            point.touch()
        made += missing
    try:
        yield
    finally:
        for point in made:
            with contextlib.suppress(OSError):  # another command's mounts may be beside it
                point.rmdir() if point.is_dir() else point.unlink()
