"""What a hostile hand writes into a store, as its writer would write it. Each function makes one change and says which."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import zstandard
from hostile_files import WORDS
from hostile_metadata import restate
from hostile_stores import HostileStore, any_shard_file, shard_file, with_crc32c

from labelstore.encodings import committed_arrays
from labelstore.errors import LabelStoreError
from labelstore.schema import ATTRIBUTE, ArraySpec, Status, StoreInfo, index_arrays
from labelstore.storage.metadata import commits_spec

_FLOATS = (float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e31, 1e-45, -1.0, 0.0)
_IDS = (b"..", b"../../etc/passwd", b"/etc/passwd", b"a\0b", b"\xff\xfe", b"", b"a//b", b"a\nb", b"\xed\xa0\x80")
_INFLATED: tuple[dict[str, Any], ...] = (
    {"id_bytes": 65536, "shard_size": 4096},
    {"shard_size": 2**20, "num_rows": 2**20},
    {"top_k": 8, "map_size": [1024, 1024]},
    {"top_k": 65535, "map_size": [8, 16]},
    {"top_k": 1, "map_size": [2048, 4096]},
    {"top_k": 1, "map_size": [4096, 4096]},
    {"top_k": 1, "map_size": [1, 4096], "num_classes": 65535},
)


def chunk(store: HostileStore, rng: Random) -> str:
    """Put a frame in the place of a chunk that no writer makes, in a shard file that is whole in itself."""
    spec, shard, file = any_shard_file(store, rng)
    chunks = store.chunks(spec, shard)
    if not chunks:
        return "nothing"
    kind, made = _frame(spec.row_bytes, rng, compressed=spec.compressed)
    place = rng.randrange(len(chunks))
    chunks[place] = made
    store.replace(file, shard_file(chunks, store.info.shard_size))
    return f"chunk {place} of {store.name(file)}: {kind}"


def frame(store: HostileStore, rng: Random) -> str:
    """Put a frame that no writer makes in the place of a file that is one chunk."""
    spec = rng.choice([spec for spec in store.specs if not spec.by_row])
    shard = rng.randrange(store.info.num_shards)
    kind, made = _frame(spec.row_bytes * store.info.shard_size, rng, compressed=spec.compressed)
    if spec.compressed and not spec.committed:
        made = with_crc32c(made)
    store.replace(store.file(spec, shard), made)
    return f"{spec.name} of shard {shard}: {kind}"


def values(store: HostileStore, rng: Random) -> str:
    """Write a file of an array as the writer would, with values that no writer has."""
    spec = rng.choice(store.committed)
    shard = rng.choice(store.shards())
    count = len(store.info.shard_rows(shard))
    raw = np.frombuffer(rng.randbytes(count * spec.row_bytes), spec.numpy_dtype).reshape(count, *spec.row_shape).copy()
    if spec.name == "classes":
        raw[:] = rng.choice((raw % store.info.num_classes, np.full_like(raw, 65535), np.full_like(raw, store.info.num_classes)))
    elif spec.name == "scores" and rng.random() < 0.7:
        raw[:] = rng.choice((raw % 60, np.zeros_like(raw), np.full_like(raw, 255)))
    elif spec.name == "score_range":
        raw[:] = np.array([[rng.choice(_FLOATS), rng.choice(_FLOATS)] for _ in range(count)])
    elif spec.name == "status":
        raw[:] = [rng.choice((*Status, Status.DONE, Status.DONE, 4, 77, 255)) for _ in range(count)]
    elif spec.name == "spectra":
        raw[:] = np.frombuffer(b"".join(_record(store, rng) for _ in range(count)), np.uint8).reshape(raw.shape)
    store.put_column(spec, shard, raw)
    return f"other {spec.name} of shard {shard}"


def ids(store: HostileStore, rng: Random) -> str:
    """Write ids that are no image ids, or the same one twice."""
    spec, shard = store.spec("ids"), rng.randrange(store.info.num_shards)
    rows = store.info.shard_rows(shard)
    width = spec.row_bytes
    found = [rng.choice((*_IDS, b"twice", b"x" * width, f"id {row}".encode()))[:width].ljust(width, b"\0") for row in rows]
    store.put_column(spec, shard, np.frombuffer(b"".join(found), np.uint8).reshape(len(rows), width))
    return f"other ids of shard {shard}"


def targets(store: HostileStore, rng: Random) -> str:
    """Write targets that are no classes."""
    shard = rng.randrange(store.info.num_shards)
    found = [rng.choice((-1, -(2**31), 2**31 - 1, 0, 7, 1000)) for _ in store.info.shard_rows(shard)]
    store.put_column(store.spec("targets"), shard, np.array(found, np.int32))
    return f"other targets of shard {shard}"


def commit(store: HostileStore, rng: Random) -> str:
    """Write a commit of other numbers, of another form, or none."""
    spec, shard = store.specs[-1], rng.randrange(store.info.num_shards)
    file, kind = store.file(spec, shard), rng.choice(("numbers", "zeros", "fewer", "more", "none", "one"))
    numbers = np.array([rng.choice(WORDS) for _ in range(spec.row_bytes // 8)], np.uint64)
    if kind == "none":
        store.remove(file)
    elif kind == "one" and file.is_file() and len(data := bytearray(file.read_bytes())) > 12:
        data[rng.randrange(len(data) - 4)] ^= 255
        store.replace(file, with_crc32c(bytes(data[:-4])))
    elif kind != "one":
        data = (numbers * (kind != "zeros")).tobytes()
        store.replace(file, with_crc32c({"fewer": data[:-32], "more": data + bytes(32)}.get(kind, data)))
    return f"commit of shard {shard}: {kind}"


def inflated(store: HostileStore, rng: Random) -> str:
    """Give the store other dimensions, and files that hold so much: a few bytes each, as all of it is alike."""
    said = rng.choice(_INFLATED)
    restate(store, said)
    try:
        store.info = StoreInfo.from_attributes(store.json("")["attributes"][ATTRIBUTE], "")
    except LabelStoreError:
        return f"{said}: refused"
    shards = store.shards()
    store.committed = committed_arrays(store.info)
    store.specs = (*store.committed, *index_arrays(store.info), commits_spec(store.info))
    for shard in range(store.info.num_shards):
        for spec in store.specs[:-1] if shard in shards else index_arrays(store.info):
            store.replace(store.file(spec, shard), _alike(spec, store.info.shard_size))
    store.seal_commits()
    store.seal_metadata()
    return f"{said}, filled"


def _alike(spec: ArraySpec, rows: int) -> bytes:
    """A file of one value: all rows are done, all classes 1, all scores the same."""
    size, value = spec.row_bytes * (1 if spec.by_row else rows), 0 if spec.name in ("scores", "spectra") else 1
    content = np.full(size // spec.numpy_dtype.itemsize, value, spec.numpy_dtype).tobytes()
    chunk = _compress(content) if spec.compressed else with_crc32c(content)
    if spec.by_row:
        return shard_file([chunk] * min(rows, 16), rows)
    return with_crc32c(chunk) if spec.compressed and not spec.committed else chunk


def _frame(size: int, rng: Random, *, compressed: bool) -> tuple[str, bytes]:
    content = rng.randbytes(size) if size < 2**20 else bytes(size)
    if not compressed:
        kind, made = rng.choice((("short", content[:-1]), ("long", content * 2), ("noise", content), ("nothing", b"")))
        return kind, with_crc32c(made)
    kind = rng.choice(tuple(FRAMES))
    return kind, FRAMES[kind](content)


def _compress(content: bytes, **how: Any) -> bytes:
    return zstandard.ZstdCompressor(**{"write_checksum": True, **how}).compress(content)


def _bomb(size: int) -> bytes:
    """A frame of very many zeros."""
    made = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj(size=size)
    zeros = bytes(2**24)
    return b"".join(made.compress(zeros[: min(2**24, size - at)]) for at in range(0, size, 2**24)) + made.flush()


_BOMBS = {size: _bomb(size) for size in (2**27, 2**32)}


def _claiming(content: bytes, size: int) -> bytes:
    """A frame of one window whose header claims to hold more (RFC 8878: 8 bytes of content size)."""
    whole = _compress(content)
    blocks = whole[6:] if len(content) < 256 else whole[7:] if len(content) < 65792 else whole[9:]
    return bytes.fromhex("28b52ffd") + bytes([0xE4]) + size.to_bytes(8, "little") + blocks


FRAMES: dict[str, Any] = {
    "no checksum": lambda content: _compress(content, write_checksum=False),
    "no size": lambda content: _compress(content, write_content_size=False),
    "wrong checksum": lambda content: _compress(content)[:-4] + b"0000",
    "dictionary": lambda content: _compress(content, dict_data=zstandard.ZstdCompressionDict(b"0123456789" * 200)),
    "dictionary id": lambda content: b"\x28\xb5\x2f\xfd\x27" + b"\x01\x02\x03\x04" + _compress(content)[5:],
    "after skippable": lambda content: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + _compress(content),
    "skippable": lambda content: b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content,
    "twice": lambda content: _compress(content) * 2,
    "shorter": lambda content: _compress(content[:-1]),
    "longer": lambda content: _compress(content + b"x"),
    "none": lambda content: b"",
    "magic": lambda content: b"\x28\xb5\x2f\xfd",
    "claims a terabyte": lambda content: _claiming(content, 2**40),
    "claims all": lambda content: _claiming(content, 2**64 - 3),
    "bomb of 128 MB": lambda content: _BOMBS[2**27],
    "bomb of 4 GB": lambda content: _BOMBS[2**32],
    "huge window": lambda content: b"\x28\xb5\x2f\xfd\x04\xff" + _compress(content)[6:],
    "noise": lambda content: content,
    "valid": lambda content: _compress(content),
}


def _record(store: HostileStore, rng: Random) -> bytes:
    """A spectral record whose named classes are classes, most of the time; its scales anything."""
    size = store.spec("spectra").row_bytes
    shape = store.info.spectral
    data = bytearray(rng.randbytes(size))
    data[:12] = np.array([rng.choice(_FLOATS) for _ in range(3)], "<f4").tobytes()
    if shape is not None and rng.random() < 0.9:
        start = 12 + (4 << shape.tail_bits if shape.tail_bits else 0)
        data[12:start] = np.array([rng.choice((1.0, *_FLOATS[3:])) for _ in range((start - 12) // 4)], "<f4").tobytes()
        classes = rng.sample(range(store.info.num_classes), shape.classes)
        data[start : start + 2 * shape.classes] = np.array(classes, "<u2").tobytes()
    return bytes(data)


CHANGES = (chunk, chunk, frame, values, values, ids, targets, commit, inflated)
SELF_SEALED = (ids, targets, frame, inflated)
"""Changes to files that carry their own checksum, which is made anew; or after which all checksums are put right."""
