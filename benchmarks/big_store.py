"""Builds a store of ImageNet's size out of a few real maps, in seconds: 1,281,167 rows, about 2.7 GB (encoding spectral: 0.3).

All shards hold the same maps, those of --maps FILE.npz or made here, over and over; so a shard's files are encoded once and
written for each. Ids, shard size, metadata and commits are those of a store of that many images.

python benchmarks/big_store.py OUT [--rows 1281167] [--maps FILE.npz]
python benchmarks/big_store.py OUT --encoding spectral [--shape 16 4 4 0] [--dense FILE.npz]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dense_maps import load_dense
from maps import Packed, create, fixed_columns, load_maps, pack, pack_dense

from labelstore.encodings import committed_arrays
from labelstore.pipelines.files import commit_record, encode_file
from labelstore.pipelines.sink import open_sink
from labelstore.schema import ArraySpec, StoreInfo, index_arrays
from labelstore.storage import open_source
from labelstore.storage.metadata import commits_spec
from labelstore.storage.origin import ids_seal, origin_of
from labelstore.summary import folder_bytes

IMAGENET = 1_281_167
SHAPE = ("classes_per_image", "patterns", "frequencies", "tail_bits")
_ID_BYTES = 64
"""More than a row's id and target take on the disk."""


def build(out: Path, packed: Packed, rows: int) -> None:
    """Build the store beside ``out`` and rename it when it is whole."""
    unfinished = out.with_name(f"{out.name}.building")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    print(f"{out}: ids of {rows:,} rows ...", file=sys.stderr)
    info = create(unfinished, packed, rows)
    whole = shard_files(info, packed, info.shard_size)
    require_room(unfinished, info.num_shards * sum(map(len, whole.values())) + rows * _ID_BYTES)
    fill(unfinished, info, packed, whole)
    unfinished.rename(out)


def fill(location: Path, info: StoreInfo, packed: Packed, whole: Mapping[ArraySpec, bytes]) -> None:
    """Write the files of every shard, and its commit."""
    source, sink = open_source(location)[0], open_sink(str(location))
    commits = commits_spec(info)
    for shard in range(info.num_shards):
        rows = len(info.shard_rows(shard))
        files = whole if rows == info.shard_size else shard_files(info, packed, rows)
        for spec, data in files.items():
            sink.put({source.file_key(spec, shard): data})
        seal = ids_seal(source.index_rows(index_arrays(info)[0], shard))
        record = np.array([[*map(commit_record, files.values()), origin_of(info, seal)]], np.uint64)
        sink.put({source.file_key(commits, shard): encode_file(commits, record, 1)})
        print(f"\rshard {shard + 1} of {info.num_shards}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    sink.flush([source.file_key(spec, 0) for spec in whole])


def shard_files(info: StoreInfo, packed: Packed, rows: int) -> dict[ArraySpec, bytes]:
    """The files of a shard of so many rows."""
    specs = committed_arrays(info)
    columns: dict[str, Any] = {**packed.repeat(rows).arrays, **fixed_columns(slice(0, rows))}
    for spec in specs:
        columns.setdefault(spec.name, np.full((rows, *spec.row_shape), spec.fill, spec.numpy_dtype))
    return {spec: encode_file(spec, columns[spec.name], info.shard_size) for spec in specs}


def require_room(location: Path, needed: int) -> None:
    free = shutil.disk_usage(location.parent).free
    if free < needed * 1.1:
        shutil.rmtree(location)
        raise SystemExit(f"{location.parent}: expected {needed * 1.1 / 1e9:.1f} GB free on the disk, found {free / 1e9:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=IMAGENET)
    parser.add_argument("--maps", type=Path, metavar="FILE.npz", help="maps for encoding topk")
    parser.add_argument("--encoding", choices=["topk", "spectral"], default="topk")
    parser.add_argument(
        "--shape", type=int, nargs=4, default=(16, 4, 4, 0), metavar=("M", "R", "k", "b"), help="of spectral maps"
    )
    parser.add_argument(
        "--dense", type=Path, metavar="FILE.npz", help="logits for encoding spectral, as dense_maps.py keeps them"
    )
    options = parser.parse_args()
    if options.out.exists():
        print(f"{options.out}: there already, kept")
        return
    if options.encoding == "spectral":
        maps = pack_dense(load_dense(options.dense), encoding="spectral", **dict(zip(SHAPE, options.shape, strict=True)))
    else:
        maps = pack(*load_maps(options.maps))
    build(options.out, maps, options.rows)
    size = folder_bytes(options.out)
    print(f"{options.out}: {options.rows:,} rows, {size / 1e9:.2f} GB, {size / options.rows:,.0f} bytes a row")


if __name__ == "__main__":
    main()
