"""What a hostile hand does to the data files of a store, whatever is in them. Each function makes one change and says which."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from random import Random

import numpy as np
from hostile_stores import HostileStore, any_shard_file, with_crc32c

from labelstore.schema import index_arrays

WORDS = (0, 1, 4, 15, 2**16, 2**31, 2**32, 2**40, 2**63, 2**64 - 20, 2**64 - 2, 2**64 - 1)
_DEVICES = ("/dev/zero", "/dev/null", "/dev/urandom", "/dev/full", "/dev", "/", "loop", "nowhere")


def bits(store: HostileStore, rng: Random) -> str:
    """Flip a few bits."""
    file, data = _any_data(store, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 8)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return store.put(file, data, "bits flipped")


def length(store: HostileStore, rng: Random) -> str:
    """Cut a file, or make it longer."""
    file, data = _any_data(store, rng)
    if rng.random() < 0.5:
        return store.put(file, data[: rng.randrange(len(data) + 1)], "cut")
    return store.put(file, data + rng.randbytes(rng.choice((1, 4, 16, 5000))), "longer")


def some_bytes(store: HostileStore, rng: Random) -> str:
    """Write zeros, ones or noise over a part of a file."""
    file, data = _any_data(store, rng)
    start = rng.randrange(len(data) + 1)
    size = rng.randrange(len(data) - start + 1)
    data[start : start + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return store.put(file, data, f"{size} bytes from {start} on")


def exchange(store: HostileStore, rng: Random) -> str:
    """Let two files change places, or one take the place of another: shards of an array, arrays of a shard, any two.

    Not two files of ids, or of targets: each is whole in itself, and nothing says which shard it is of.
    """
    one = rng.choice(store.data)
    alike = {spec.name for spec in index_arrays(store.info)}
    others = [file for file in store.data if file != one and not (file.parent == one.parent and one.parent.name in alike)]
    near = [file for file in others if file.parent == one.parent]
    other = rng.choice(near if near and rng.random() < 0.7 else others)
    first, second = store.read(one), store.read(other)
    store.replace(one, second)
    if rng.random() < 0.7:
        store.replace(other, first)
    return f"{store.name(one)} and {store.name(other)} exchanged"


def special(store: HostileStore, rng: Random) -> str:
    """Put what is no plain file in the place of a file: a folder, a link, a pipe, a socket, nothing."""
    files = [*store.data, *(store.meta(spec.name) for spec in store.specs), store.meta("")]
    file, kind = (
        rng.choice(files),
        rng.choice(("folder", "pipe", "socket", "nothing", "folder of all", "file for folder", "link")),
    )
    if kind in ("folder of all", "file for folder"):
        store.remove(file.parent if file.parent != store.path else file)
        if kind == "file for folder" and file.parent != store.path:
            file.parent.write_bytes(b"x")
        return f"{store.name(file)}: {kind}"
    if not file.parent.is_dir():
        return "nothing"
    store.remove(file)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        bind(file)
    elif kind == "link":
        kind = rng.choice(_DEVICES)
        file.symlink_to(file.name if kind == "loop" else kind)
    return f"{store.name(file)}: {kind}"


def sparse(store: HostileStore, rng: Random) -> str:
    """Make a file huge that takes no room on the disk."""
    file = rng.choice([*store.data, store.meta("")])
    if not file.is_file():
        return "nothing"
    size = rng.choice((2**24, 2**31, 2**36, 2**40))
    with file.open("r+b") as opened:
        opened.truncate(size)
        if rng.random() < 0.5:
            opened.seek(size - 4)
            opened.write(b"last")
    return f"{store.name(file)}: {size} bytes"


def index(store: HostileStore, rng: Random) -> str:
    """Let a shard's index point anywhere, under a checksum that fits."""
    spec, shard, file = any_shard_file(store, rng)
    size = store.info.shard_size * 16
    data = bytearray(file.read_bytes())
    if len(data) < size + 4:
        return "nothing"
    table = np.frombuffer(bytes(data[-size - 4 : -4]), "<u8").copy()
    for _ in range(rng.choice((1, 1, 2, 20))):
        place = rng.randrange(len(table))
        table[place] = rng.choice((*WORDS, len(data), len(data) - size - 4, int(table[rng.randrange(len(table))])))
    data[-size - 4 :] = with_crc32c(table.tobytes())
    if rng.random() < 0.2:  # room for offsets that lie far out
        data[:0] = bytes(rng.choice((1000, 70_000)))
    return store.put(file, data, f"index of shard {shard} of {spec.name}")


def _any_data(store: HostileStore, rng: Random) -> tuple[Path, bytearray]:
    file = rng.choice([*store.data, *store.data, store.meta(""), *(store.meta(spec.name) for spec in store.specs)])
    return file, bytearray(store.read(file))


def bind(file: Path) -> None:
    before = Path.cwd()
    os.chdir(file.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(file.name)
    os.chdir(before)


CHANGES = (bits, bits, length, some_bytes, exchange, special, special, sparse, index, index)
