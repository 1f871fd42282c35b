"""Errands with one trespass each, to show that the watch over commands notices it. Runs in a process of its own.

python hostile_trespasses.py WORLD    prints the problems of each by name, as JSON
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from hostile_errands import Errand, Errands
from hostile_world import CANARY, OUT, STRANGER

_SECRET = "secret.txt"


def nothing(errands: Errands, store: Path) -> None:
    """Look at the store, and read behind its link as a reader may."""
    with errands.watched(store, "nothing", links=True):
        (store / "link").read_bytes()
    errands.command(store, "info", store)


def read_behind_a_link(errands: Errands, store: Path) -> None:
    with errands.watched(store, "verify", links=False):
        (store / "link").read_bytes()


def read_beside_a_link(errands: Errands, store: Path) -> None:
    with errands.watched(store, "info", links=True):
        (errands.world / CANARY / "c.0").read_bytes()


def list_a_folder(errands: Errands, store: Path) -> None:
    with errands.watched(store, "info", links=True):
        list((errands.world / CANARY).iterdir())


def write_behind_a_link(errands: Errands, store: Path) -> None:
    with errands.watched(store, "info", links=True), (store / "link").open("ab") as file:
        file.write(b"more")


def remove_from_the_canary(errands: Errands, store: Path) -> None:
    with errands.watched(store, "repair", links=False):
        (errands.world / CANARY / "c.9.partial").unlink()


def remove_a_stranger(errands: Errands, store: Path) -> None:
    with errands.watched(store, "repair", links=False):
        (store / f"{STRANGER}file").unlink()


def write_beside_the_store(errands: Errands, store: Path) -> None:
    (errands.world / OUT).mkdir()


def ask_a_server(errands: Errands, store: Path) -> None:
    with socket.create_connection(("127.0.0.1", errands.listening.port)) as asked:
        asked.recv(1)


def open_outside(errands: Errands, store: Path) -> None:
    Path("/etc/hostname").read_bytes()


def run_a_program(errands: Errands, store: Path) -> None:
    subprocess.run(["true"], check=True)


def run_the_canarys_program(errands: Errands, store: Path) -> None:
    (errands.world / CANARY / "ran").touch()


def end_in_another_way(errands: Errands, store: Path) -> None:
    errands.command(store, "verify", "--no-such-option", store)


TRESPASSES: tuple[Errand, ...] = (
    read_behind_a_link,
    read_beside_a_link,
    list_a_folder,
    write_behind_a_link,
    remove_from_the_canary,
    remove_a_stranger,
    write_beside_the_store,
    ask_a_server,
    open_outside,
    run_a_program,
    run_the_canarys_program,
    end_in_another_way,
)


def main(world: Path) -> None:
    """Run all of them, each on a store of its own."""
    os.chdir(world)
    errands = Errands(world)
    found = {}
    for number, errand in enumerate((nothing, nothing, *TRESPASSES)):  # the first time modules are loaded
        store = world / "stores" / f"trespass-{number}.zarr"
        shutil.copytree(world / "originals" / "topk.zarr", store)
        (store / "link").symlink_to(world / CANARY / _SECRET)
        (store / f"{STRANGER}file").write_bytes(b"somebody's")
        errands.try_errand(errand, store)
        found[errand.__name__] = errands.problems
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
