"""What a hostile hand does to what tells stores apart: their ids, what commits say of these, marks of runs that are at work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
from hostile_files import WORDS
from hostile_metadata import NASTY
from hostile_stores import HostileStore, with_crc32c

from labelstore.pipelines.claims import CLAIMED
from labelstore.schema import ATTRIBUTE, UNFINISHED

_IDS: tuple[Any, ...] = (
    *("0" * 32, "f" * 32, "F" * 32, "f" * 31, "f" * 33, "0x" + "f" * 30, "f" * 31 + "\n", "1_" * 16, " " + "f" * 30 + " "),
    *("\u0663" * 32, "-" + "1" * 31, "\x1b[2J" + "f" * 28, None),
)


def store_id(store: HostileStore, rng: Random) -> str:
    """Give the store another id, one that is none, or take it away."""
    value = rng.choice((*_IDS, rng.choice(NASTY)))
    store.edit("", lambda root: root["attributes"][ATTRIBUTE].update(store_id=value))
    return f"store_id: {str(value)[:40]!r}"


def origin(store: HostileStore, rng: Random) -> str:
    """Let a commit be of another store, or for other images: the last row, its checksum made anew."""
    spec, shard = store.specs[-1], rng.choice(store.shards())
    file = store.file(spec, shard)
    data = bytearray(store.read(file))
    if store.info.store_id is None or len(data) < 36:
        return "nothing"
    last = np.frombuffer(bytes(data[-36:-4]), "<u8").copy()
    last[rng.randrange(4)] = rng.choice(WORDS)
    store.replace(file, with_crc32c(bytes(data[:-36]) + last.tobytes()))
    return f"commit of shard {shard}: {last.tolist()}"


def at_work(store: HostileStore, rng: Random) -> str:
    """Say that a run makes the store, or adds rows to it, since any time."""
    name = rng.choice((UNFINISHED, CLAIMED, CLAIMED))
    hour = timedelta(hours=rng.choice((-1, 0, 1)))
    since = rng.choice(((datetime.now(UTC) + hour).isoformat(), "0001-01-01T00:00:00+23:59", "\x1b[2J", *NASTY))
    claim = {"token": rng.choice(("f" * 32, *NASTY)), "since": since, "by": rng.choice(("\x1b]0;owned\x07", *NASTY))}
    value = rng.choice((True, claim, claim, rng.choice(NASTY)))
    store.edit("", lambda root: root["attributes"].update({name: value}))
    return f"{name}: {str(value)[:80]!r}"


CHANGES = (store_id, origin, at_work)
