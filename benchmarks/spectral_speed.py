"""Spectral stores against the reference's way, and against what no way can do without, side by side in one process.

Batches of random rows and boxes (RandomResizedCrop's) out of stores of --rows rows, which repeat maps of --dense FILE.npz
(`logits`, as dense_maps.py keeps them) or of maps made here. Everything lies in the page cache. The peers:

  reference    one torch file a map (float32 [2, 5, H, W]), torch.load, dense map, torchvision's roi_align, softmax
  topk         our reader on a store of the same maps in encoding topk
  zarr         zarr-python's oindex, then our pooling in NumPy
  tensorstore  TensorStore's batched reads, then our pooling in NumPy
  floor        pread of the records, places known beforehand, and the compiled arithmetic alone; nothing checked

python benchmarks/spectral_speed.py [--dense FILE.npz] [--classes 16 --patterns 4 --frequencies 4 --tail-bits 0]
    [--rows 16384] [--json FILE]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from crops import random_crops, random_rows
from dense_maps import load_dense
from maps import pack_dense, write_store
from measuring import Line, arguments, cores, ratios, report, side_by_side, spread
from numpy.typing import NDArray
from peers import Floor, TensorStore, ZarrPython
from reader_speed import BATCH, BATCHES_A_ROUND, Batch, show_rates
from reference import ReferenceFiles, dense_pool

from labelstore import LabelMapReader
from labelstore.boxes import check_boxes
from labelstore.encodings import find_encoding
from labelstore.encodings.spectral import rebuild, rest_logits, shape_of, split
from labelstore.fetch import RowFetcher
from labelstore.storage import open_source
from labelstore.summary import folder_bytes
from labelstore.threads import usual_threads

TOLERANCE = 1e-5
Seconds = Mapping[str, Sequence[float]]


class Contestants:
    """Our readers and the peers, open on stores of the same maps."""

    def __init__(self, scratch: Path, rows: int, logits: NDArray[Any], choices: Mapping[str, int]) -> None:
        spectral, topk = pack_dense(logits, encoding="spectral", **choices), pack_dense(logits, encoding="topk")
        self.store, plain = scratch / "spectral.zarr", scratch / "topk.zarr"
        write_store(self.store, spectral.repeat(rows))
        write_store(plain, topk.repeat(rows))
        self.ours, self.topk = LabelMapReader(self.store, compiled=True), LabelMapReader(plain)
        self.numpy = LabelMapReader(self.store, compiled=False)
        self.reference = ReferenceFiles(scratch / "files")
        self.reference.write(self.topk.read(np.arange(len(topk))), rows)
        info = self.info = self.ours.info
        self.zarr, self.tensorstore = ZarrPython(self.store, info), TensorStore(self.store, info, usual_threads())
        self.floor = Floor(self.store, info)
        arithmetic = find_encoding("spectral", "benchmark").compiled()
        if arithmetic is None:
            raise SystemExit("numba is needed: pip install 'labelstore[fast]'")
        self._arithmetic, self._soft = arithmetic, np.empty((BATCH, info.num_classes), np.float32)

    def batch(self, seed: int) -> Batch:
        rows = random_rows(len(self.ours), BATCH, seed)
        places = self.floor.places(np.sort(rows))
        return Batch(rows, [self.ours.ids[row] for row in rows.tolist()], random_crops(len(rows), seed), places)

    def check(self, batch: Batch) -> None:
        """All ways must give the labels of the rebuilt map, pooled by torchvision."""
        source, info = open_source(self.store)
        records = RowFetcher(source, info).maps(batch.rows)["spectra"]
        classes, logits = rebuild(records, info)
        dense = np.zeros((len(records), info.num_classes, *info.map_size))
        if shape_of(info).tail_bits:
            dense += rest_logits(split(records, info), info)[:, :, None, None]
        np.put_along_axis(dense, classes.astype(np.intp)[:, :, None, None], logits, axis=1)
        everything = np.broadcast_to(np.arange(info.num_classes)[None, :, None, None], dense.shape)
        maps = torch.from_numpy(np.stack([dense, everything], axis=1))
        expected = dense_pool(maps, torch.from_numpy(batch.boxes), info.num_classes).numpy()
        for name in ("rows", "ids", "rows, NumPy only", "zarr", "tensorstore"):
            worst = float(np.abs(self.pooling()[name](batch) - expected).max())
            if not worst <= TOLERANCE:
                raise SystemExit(f"{name}: labels differ from those of the rebuilt map by {worst:.1e}")

    def pooling(self) -> dict[str, Callable[[Batch], Any]]:
        return {
            "reference": lambda batch: self.reference.soft_labels(batch.rows, batch.boxes),
            "topk": lambda batch: self.topk.pool(batch.rows, batch.boxes),
            "zarr": lambda batch: self.zarr.soft_labels(batch.rows, batch.boxes),
            "tensorstore": lambda batch: self.tensorstore.soft_labels(batch.rows, batch.boxes),
            "rows": lambda batch: self.ours.pool(batch.rows, batch.boxes),
            "ids": lambda batch: self.ours.pool(batch.ids, batch.boxes),
            "rows, NumPy only": lambda batch: self.numpy.pool(batch.rows, batch.boxes),
            "floor": self.least,
        }

    def least(self, batch: Batch) -> None:
        """Gather the records, pool them."""
        (places,) = batch.places
        data = bytearray().join(map(os.pread, places.fds, places.lengths, places.offsets))
        records = np.frombuffer(data, np.uint8).reshape(len(places.fds), -1)[:, : places.size]
        boxes = check_boxes(batch.boxes, len(records))
        self._arithmetic({"spectra": records}, boxes, self.info, 1.0, self._soft[: len(records)])


def lines_of(seconds: Seconds) -> list[Line]:
    reference = seconds["reference"]
    return [
        Line("pool by rows / reference", ratios(reference, seconds["rows"]), least=200),
        Line("pool by ids / reference", ratios(reference, seconds["ids"]), least=200),
        Line("pool by rows, NumPy only / reference", ratios(reference, seconds["rows, NumPy only"])),
        Line("pool by rows / our reader on topk", ratios(seconds["topk"], seconds["rows"])),
        Line("pool by rows / zarr-python", ratios(seconds["zarr"], seconds["rows"])),
        Line("pool by rows / TensorStore", ratios(seconds["tensorstore"], seconds["rows"])),
        Line("pool by rows / floor", ratios(seconds["floor"], seconds["rows"]), least=0.5),
        Line("pool by ids / floor", ratios(seconds["floor"], seconds["ids"]), least=0.5),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dense", type=Path, metavar="FILE.npz")
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--patterns", type=int, default=4)
    parser.add_argument("--frequencies", type=int, default=4)
    parser.add_argument("--tail-bits", type=int, default=0)
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(cores())
    choices = {
        "classes_per_image": options.classes,
        "patterns": options.patterns,
        "frequencies": options.frequencies,
        "tail_bits": options.tail_bits,
    }
    with tempfile.TemporaryDirectory() as scratch:
        ways = Contestants(Path(scratch), options.rows, load_dense(options.dense), choices)
        numbers = range(options.rounds * BATCHES_A_ROUND)
        batches = [ways.batch(seed) for seed in numbers]
        ways.check(batches[0])
        rounds = [batches[start : start + BATCHES_A_ROUND] for start in numbers[::BATCHES_A_ROUND]]
        seconds = side_by_side(ways.pooling(), rounds, fewer={"reference": 1, "zarr": 1})
        size = folder_bytes(ways.store) / options.rows
    shape = f"M={options.classes}, R={options.patterns}, k={options.frequencies}, b={options.tail_bits}"
    print(f"{shape}, {size:,.0f} bytes a map, everything counted")
    print(f"medians of {options.rounds} rounds, {BATCH} random rows a batch out of {options.rows:,}, {cores()} cores")
    show_rates(seconds, min(BATCH, options.rows))
    figures = {name: spread(values).median for name, values in seconds.items()}
    report("speed, as multiples", lines_of(seconds), options.json, seconds_a_batch=figures, bytes_a_map=size, **choices)


if __name__ == "__main__":
    main()
