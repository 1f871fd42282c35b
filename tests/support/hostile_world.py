"""The surroundings of hostile stores: images, a canary that nothing may touch, a server that nothing may ask.

A store's changes find all of it from the store's own path: everything lies in one folder, the world.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from commands import run_here
from pictures import paint

CANARY, IMAGES, MORE, STORES, OUT = "canary", "images", "more", "stores", "out"
STRANGER = "stranger-"
"""How names of files begin that no store has, and that no command may remove."""
_COLOURS = ("red", "green", "blue", "yellow", "white")
_PROGRAM = 'from pathlib import Path\nPath(__file__).with_name("ran").write_text("ran")\n'


def world_of(store: Path) -> Path:
    """Return the world that a store lies in."""
    return store.parent.parent


def lay_out_world(world: Path) -> Path:
    """Make images, more images, and the canary; return the folder for stores."""
    for number in range(10):
        paint(world / IMAGES / f"{number:02}.png", _COLOURS[number % 5], _COLOURS[number % 3])
    (world / IMAGES / "04.png").write_bytes(b"no image")
    shutil.copytree(world / IMAGES, world / MORE)
    for number in range(3):
        paint(world / MORE / f"a longer name than any before {number}.png", _COLOURS[number])
    canary = world / CANARY
    paint(canary / "magenta.png", "magenta")
    for name in ("zarr.json", "c.0", "c.0.0", "c.0.0.0", "c.0.0.0.0", "c.1.0.0.0", "secret.txt", "c.9.partial", "lock"):
        (canary / name).write_bytes(b"what nothing may read or remove " + name.encode())
    (canary / "below").mkdir()
    (canary / "below" / "c.0").write_bytes(b"below")
    (canary / "empty").mkdir()
    (canary / "canary_program.py").write_text(_PROGRAM)
    (canary / "weights.pth").write_bytes(b"weights")
    (world / STORES).mkdir()
    return world / STORES


def annotated_originals(world: Path) -> list[Path]:
    """Make whole stores by `annotate`, and some that a run was interrupted in."""
    folder = world / "originals"
    folder.mkdir()
    toy = ("--workers", "0", "--model", "toy_annotators:colours", "--shard-size", "4")
    for name, options in {"topk": ("--encoding", "topk", "--top-k", "3"), "spectral": ("--encoding", "spectral")}.items():
        store = folder / f"{name}.zarr"
        made = run_here("annotate", world / IMAGES, "--store", store, *toy, *options)
        if made.code != 0:
            raise RuntimeError(made.err)
        for kind in ("pending", "extended"):
            shutil.copytree(store, folder / f"{name}-{kind}.zarr")
        next((folder / f"{name}-pending.zarr" / "commits").glob("c.1*")).unlink()
        run_here("annotate", world / MORE, "--store", folder / f"{name}-extended.zarr", "--workers", "0", "--extend")
    return sorted(folder.glob("*.zarr"))


class Listening:
    """A server on this machine's own address that counts connections: a hostile store may name it, and nothing may ask it."""

    def __init__(self, world: Path) -> None:
        self.hits = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        (world / "port").write_text(str(self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                connection, _ = self._socket.accept()
                self.hits += 1
                connection.close()


class Audit:
    """Notes what this process does outside of the world: files written or removed, programs, connections."""

    _CHANGES = (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.utime",
        "shutil.rmtree",
    )
    _NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")

    def __init__(self, world: Path) -> None:
        self.noted: list[str] = []
        self.active = False
        self.ports: set[int] = set()
        self._inside = (str(world), world.resolve().as_posix())
        self._readable = tuple(
            {*self._inside, *map(os.path.realpath, (sys.prefix, sys.base_prefix, Path(__file__).parents[2])), sys.prefix}
            | {"/proc/", "/sys/", "/usr/", "/lib", "/dev/", "/etc/ld.so", "/etc/localtime", "/etc/mime.types", "/etc/ssl"}
            | {path for path in sys.path if path}
        )
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in self._NEVER:
            self.noted.append(f"{event} {str(arguments)[:200]}")
        elif event == "socket.connect":
            address = arguments[1]
            if isinstance(address, tuple) and address[1] not in self.ports:
                self.noted.append(f"connects to {address}")
        elif event == "open":
            self._opened(arguments)
        elif event in self._CHANGES:
            for path in arguments:
                if isinstance(path, str | bytes) and self._is_outside(path, self._inside):
                    self.noted.append(f"{event} {os.fsdecode(path)[:200]}")

    def _opened(self, arguments: tuple[Any, ...]) -> None:
        path, _, flags = arguments
        if not isinstance(path, str | bytes):
            return
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and os.fsdecode(path) not in ("/dev/null", "/dev/tty")
        if self._is_outside(path, self._inside if writes else self._readable):
            self.noted.append(f"opens {'to write ' if writes else ''}{os.fsdecode(path)[:200]}")

    @staticmethod
    def _is_outside(path: str | bytes, allowed: tuple[str, ...]) -> bool:
        name = os.fsdecode(path)
        if not name.startswith("/"):
            return False  # relative to a folder that is open already, or to the working folder, which is the world
        if "/__pycache__" in name:  # Python's and numba's own
            return False
        return not os.path.normpath(name).startswith(allowed)


def strangers(store: Path) -> Iterator[str]:
    """Yield the names of files in a store that are none of its own."""
    for folder, folders, names in os.walk(store):
        yield from (str(Path(folder, name)) for name in (*folders, *names) if name.startswith(STRANGER))
