"""Makes the golden stores of format version 1 that have an id. Run once; to be run again only for a new version.

Those without (v1-topk, v1-spectral) were made by the same code before that.

python tests/golden/make.py FOLDER topk|spectral [sizes]

With sizes: a store that keeps its images' sizes, v1-topk-sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from labelstore import LabelMapReader
from labelstore.ids import pack_ids
from labelstore.pipelines.encoders import encode
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.records import AnnotatorRecord, SpectralShape
from labelstore.schema import Status, StoreInfo

IDS = ["a 1.png", "b/é.png", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg", "h.jpg", "i.jpg"]
FAILED, PENDING_SHARD = 3, 2
SIZES = [(100 + row, 65535 - row) if row else (0, 0) for row in range(len(IDS))]
"""Of the first image the size is not known."""


def make(folder: Path, encoding: str, sizes: bool) -> None:
    name = f"v1-{encoding}-{'sizes' if sizes else 'id'}"
    store = str(folder / f"{name}.zarr")
    ids = pack_ids(IDS)
    record = AnnotatorRecord("golden", "0" * 64, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    info = StoreInfo(
        num_rows=len(IDS),
        num_classes=10,
        top_k=3,
        map_size=(4, 6),
        shard_size=4,
        id_bytes=ids.shape[1],
        annotator=record,
        encoding=encoding,
        spectral=SpectralShape(5, 3, 2, (3, 4), 2) if encoding == "spectral" else None,
        baseline="absent_mass" if encoding == "spectral" else "absent_mean",
        class_names=tuple(f"class {number}" for number in range(10)),
        created="2026-01-01T00:00:00+00:00",
        image_sizes=sizes,
    )
    create_store(store, info, ids, np.arange(len(IDS), dtype=np.int32))
    logits = torch.randn(len(IDS), 10, 4, 6, generator=torch.Generator().manual_seed(1)) * 3
    maps = encode(logits, info)
    writer = ShardWriter(store)
    for shard in range(PENDING_SHARD):
        arrays = writer.empty_rows(shard)
        for local, row in enumerate(info.shard_rows(shard)):
            arrays["status"][local] = Status.FAILED if row == FAILED else Status.DONE
            arrays["image_crc32"][local] = row
            if sizes and row != FAILED:
                arrays["image_size"][local] = SIZES[row]
            for array in maps if row != FAILED else ():
                arrays[array][local] = maps[array][row]
            if row == FAILED:
                reason = np.frombuffer(b"cannot be decoded: noted by hand", np.uint8)
                arrays["errors"][local, : len(reason)] = reason
        writer.write(shard, arrays)
    done = [0, 1, 2, 4, 5, 6, 7]
    boxes = np.random.default_rng(0).uniform([0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], (7, 4))
    reader = LabelMapReader(store)
    read = reader.read(done)
    soft = reader.pool(done, boxes)
    np.savez_compressed(folder / f"{name}.npz", classes=read.classes, scores=read.scores, boxes=boxes, soft=soft)


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["sizes"])
