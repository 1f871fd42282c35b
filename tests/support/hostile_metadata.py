"""What a hostile hand does to the ``zarr.json`` files of a store. Each function makes one change and says which."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from hostile_stores import HostileStore

from labelstore.schema import ATTRIBUTE
from labelstore.storage.seals import SEALS

_LONG = "x" * 200_000
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 5, 3.5, 1e308, float("nan"), float("inf"), 2**24, 2**31, 2**32, 2**47, 2**63, 2**64),
    *(10**400, -(10**400), "", "x", "\0", "\ud800", "..", "../..", "/dev/zero", "é\u202e\x1b[2J", _LONG),
    *(
        [],
        {},
        [[]],
        [2**47, 2**47],
        [1, 1],
        [0, 0],
        {"name": []},
        {"configuration": 3},
        [None],
        [{}],
        ["bytes"],
        ["x"] * 70_000,
    ),
)
_DEPTHS = (100, 480, 900, 990, 5_000, 100_000)
_TEXTS = (
    b"",
    b"null",
    b"[",
    b"{}",
    b"[]",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"NaN",
    b'"x"',
    b"{" * 50,
    b"\x00" * 4096,
    b"7" * 9999,
)
_CODECS: tuple[Any, ...] = (
    [{"name": "bytes", "configuration": {"endian": "big"}}],
    [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
    [{"name": "bytes"}, {"name": "blosc"}],
    [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 5, "checksum": False}}],
    [{"name": "transpose", "configuration": {"order": [0]}}, {"name": "bytes"}],
    [{"name": "numcodecs.pickle"}],
    [{"name": "numcodecs.lzma"}],
    [{"name": "vlen-utf8"}],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2**40], "codecs": [], "index_codecs": []}}],
    [{"name": "sharding_indexed", "configuration": None}],
    [["bytes"]],
    [7],
    "bytes",
    [],
)
_NUMBERS = {
    "num_rows": (0, 1, 4, 8, 10, 64, 4096, 2**20, 2**31, 2**40, 2**47, 2**48),
    "shard_size": (1, 2, 3, 5, 64, 4096, 2**16, 2**20, 2**24),
    "top_k": (1, 2, 4, 100, 65535),
    "num_classes": (1, 2, 9, 11, 1000, 65534, 65535),
    "id_bytes": (1, 7, 9, 4096, 65536),
}
_SIZES = ([1, 1], [1, 4096], [4096, 4096], [6, 4], [64, 64])


def any_value(store: HostileStore, rng: Random) -> str:
    """Put something else in the place of any value of any file, or take it away, or give it another name."""
    name = _any_file(store, rng)
    said = ""

    def change(root: Any) -> None:
        nonlocal said
        holder, key = rng.choice(list(_places(root)))
        what = rng.choice(("replace", "replace", "replace", "remove", "rename", "again"))
        if what == "replace":
            holder[key] = rng.choice(NASTY)
        elif what == "remove":
            del holder[key]
        elif what == "rename" and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif isinstance(holder, list):
            holder.append(holder[key])
        said = f"{what} {key}"

    store.edit(name, change)
    return f"{name}/zarr.json: {said}"


def an_attribute(store: HostileStore, rng: Random) -> str:
    """Put something else in the place of one of the store's own attributes."""
    said = ""

    def change(root: Any) -> None:
        nonlocal said
        own = root["attributes"][ATTRIBUTE]
        holder = own["annotator"] if rng.random() < 0.2 else own
        if rng.random() < 0.1 and own.get("spectral"):
            holder = own["spectral"]
        said = rng.choice(sorted(holder))
        holder[said] = rng.choice(NASTY)

    store.edit("", change)
    return f"attribute {said}"


def a_shape(store: HostileStore, rng: Random) -> str:
    """Give the store other dimensions, in all of its metadata alike."""
    key = rng.choice([*_NUMBERS, "map_size", "spectral"])
    said: Any = rng.choice(_SIZES) if key == "map_size" else rng.choice(_NUMBERS.get(key, (0,)))
    if key == "spectral":
        numbers = rng.choice((0, 1, 2, 15, 255, 65535))
        side = rng.choice((1, 2, 4))
        said = {"classes": rng.choice((1, 5, 65535)), "shaped": rng.choice((0, 1, 65535)), "patterns": numbers}
        said |= {"frequencies": [side, side], "tail_bits": rng.choice((0, 1, 2))}
    restate(store, {key: said})
    return f"{key} = {said} everywhere"


def restate(store: HostileStore, changes: dict[str, Any]) -> None:
    """Change attributes, and the metadata of the arrays as it follows from them."""
    own: dict[str, Any] = {}

    def change(root: Any) -> None:
        root["attributes"][ATTRIBUTE].update(changes)
        own.update(root["attributes"][ATTRIBUTE])

    store.edit("", change)
    for spec in store.specs if own else ():
        row_shape = _row_shape(spec.name, list(spec.row_shape), own)

        def reshape(meta: Any, row_shape: list[int] = row_shape, name: str = spec.name) -> None:
            shards = -(-own["num_rows"] // own["shard_size"])
            rows, chunk = (shards, 1) if name == "commits" else (own["num_rows"], own["shard_size"])
            meta["shape"] = [rows, *row_shape]
            meta["chunk_grid"]["configuration"]["chunk_shape"] = [chunk, *row_shape]
            if meta["codecs"][0]["name"] == "sharding_indexed":
                meta["codecs"][0]["configuration"]["chunk_shape"] = [1, *row_shape]

        store.edit(spec.name, reshape)


def extents(store: HostileStore, rng: Random) -> str:
    """List other extents: overlapping, empty, beyond the rows, huge, very many."""
    size, rows = store.info.shard_size, store.info.num_rows
    listed: list[dict[str, Any]] = rng.choice(
        (
            [{"start": 0, "stop": rows}],
            [{"start": 0, "stop": 1}, {"start": size, "stop": rows}],
            [{"start": 0, "stop": 1}, {"start": size, "stop": size + 1}],
            [{"start": 0, "stop": 2**47}],
            [{"start": size, "stop": rows}],
            [{"start": 0, "stop": rows}, {"start": 0, "stop": rows}],
            [{"start": 0, "stop": 0}],
            [{"start": place * size, "stop": place * size + 1} for place in range(20_000)],
            [{"start": 0, "stop": rows, "images_root": 3}],
            [3],
        )
    )
    if len(listed) > 1000 or listed[-1] == {"start": 0, "stop": 2**47}:
        restate(store, {"num_rows": listed[-1]["stop"]})
    store.edit("", lambda root: root["attributes"][ATTRIBUTE].update(extents=listed))
    return f"extents: {str(listed)[:60]}"


def ids_array(store: HostileStore, rng: Random) -> str:
    """Name another array as that of the ids."""
    name = rng.choice(
        ("ids_1", "ids_0", "../ids", "status", "targets", "/dev", "ids/../ids", "ids\n", "ids_1000000", "commits")
    )
    store.edit("", lambda root: root["attributes"][ATTRIBUTE].update(ids_array=name))
    return f"ids_array: {name}"


def codecs(store: HostileStore, rng: Random) -> str:
    """Let an array be decoded in another way, or found under other names."""
    name, value = rng.choice(store.specs).name, rng.choice(_CODECS)
    key = rng.choice(("outer", "inner", "index", "separator", "grid", "transformers", "location"))

    def change(meta: Any) -> None:
        inner = meta["codecs"][0].get("configuration", {})
        if key == "inner":
            inner["codecs"] = value
        elif key == "index":
            inner["index_codecs"] = value
        elif key == "location":
            inner["index_location"] = rng.choice(("start", "middle", 3, None))
        elif key == "separator":
            meta["chunk_key_encoding"] = rng.choice(
                (
                    {"name": "v2", "configuration": {"separator": "."}},
                    {"name": "default"},
                    {"name": "default", "configuration": 3},
                    7,
                )
            )
        elif key == "grid":
            meta["chunk_grid"] = rng.choice(({"name": "rectangular"}, {"name": "regular"}, [], 3))
        elif key == "transformers":
            meta["storage_transformers"] = [{"name": "anything"}]
        else:
            meta["codecs"] = value

    store.edit(name, change)
    return f"{name}: other {key} codecs"


def raw_text(store: HostileStore, rng: Random) -> str:
    """Put bytes in the place of a whole file that are no JSON, or too much of it."""
    name = _any_file(store, rng)
    store.replace(store.meta(name), rng.choice(_TEXTS))
    return f"{name}/zarr.json: other bytes"


def nested(store: HostileStore, rng: Random) -> str:
    """Nest a value deeper than a parser may recurse."""
    name, depth = _any_file(store, rng), rng.choice(_DEPTHS)
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    middle = "1" if opening != "[" else ""
    mark = "nested here"

    def change(root: Any) -> None:
        holder, key = rng.choice(list(_places(root)))
        holder[key] = mark

    store.edit(name, change)
    text = store.read(store.meta(name))
    store.replace(store.meta(name), text.replace(f'"{mark}"'.encode(), (opening * depth + middle + closing * depth).encode()))
    return f"{name}/zarr.json: {depth} levels"


def huge_json(store: HostileStore, rng: Random) -> str:
    """Make a file that takes far more memory parsed than on the disk."""
    name = rng.choice(("", "ids", "commits"))
    store.replace(store.meta(name), b"[" + b"[]," * rng.choice((10**6, 2 * 10**7)) + b"[]]")
    return f"{name}/zarr.json: huge"


def without_seals(store: HostileStore, rng: Random) -> str:
    """Take the checksums of the metadata away, as another program's store has none."""
    store.edit("", lambda root: root["attributes"].update({SEALS: rng.choice((None, [], 3))}))
    return "no seals"


def names_of_classes(store: HostileStore, rng: Random) -> str:
    """List names that do not fit the classes, or that no terminal can show."""
    count = store.info.num_classes
    listed = rng.choice(
        (["x"] * (count - 1), ["x"] * (count + 1), ["\ud800"] * count, ["\x1b]0;x\x07"] * count, [""] * count, [_LONG] * count)
    )
    key = rng.choice(("class_names", "class_ids", "target_names"))
    store.edit("", lambda root: root["attributes"][ATTRIBUTE].update({key: listed}))
    return f"{key}: {len(listed)} of {listed[0][:5]!r}"


def _any_file(store: HostileStore, rng: Random) -> str:
    return "" if rng.random() < 0.4 else rng.choice(store.specs).name


def _places(root: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) below a JSON value."""
    keys = range(len(root)) if isinstance(root, list) else list(root) if isinstance(root, dict) else ()
    for key in keys:
        yield root, key
        yield from _places(root[key])


def _row_shape(name: str, shape: list[int], own: dict[str, Any]) -> list[int]:
    if name in ("classes", "scores"):
        return [own["top_k"], *own["map_size"]]
    if name == "spectra":
        return [_record_bytes(own)]
    return [own["id_bytes"]] if name.startswith("ids") else shape


def _record_bytes(own: dict[str, Any]) -> int:
    shape = own["spectral"]
    (down, across), bits, named = shape["frequencies"], shape["tail_bits"], shape["classes"]
    size = 12 + (4 << bits if bits else 0) + 3 * named + shape["shaped"] * shape["patterns"]
    size += shape["patterns"] * down * across + -(-own["num_classes"] * bits // 8)
    return int(-(-size // 4) * 4)


CHANGES = (
    any_value,
    any_value,
    an_attribute,
    a_shape,
    a_shape,
    extents,
    ids_array,
    codecs,
    raw_text,
    nested,
    huge_json,
    without_seals,
    names_of_classes,
)
SELF_SEALED = (without_seals,)
"""Changes after which no checksum is left that could tell."""
