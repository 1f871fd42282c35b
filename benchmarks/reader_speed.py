"""The reader against other ways to the same labels, of the same maps and boxes, side by side in one process.

Batches of random rows and boxes (RandomResizedCrop's) out of a store of --rows rows, which repeats the maps of --maps FILE.npz
or maps made here. Everything lies in the page cache. The peers:

  reference    one torch file a map (float32 [2, K, H, W]), torch.load, dense map, torchvision's roi_align, softmax
  zarr         zarr-python's oindex, then our pooling in NumPy
  tensorstore  TensorStore's batched reads, then our pooling in NumPy
  bare decode  pread and one zstd decode a chunk, places known beforehand: the better of a loop in one thread and two threads
  floor        bare decode, and one scatter-add of the batch's entries

python benchmarks/reader_speed.py [--maps FILE.npz] [--rows 16384] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from crops import random_crops, random_rows
from maps import load_maps, pack, write_store
from measuring import Line, arguments, cores, ratios, report, side_by_side, spread
from numpy.typing import NDArray
from peers import Floor, Places, TensorStore, ZarrPython, entries_of, scatter_add
from reference import ReferenceFiles

from labelstore import LabelMapReader
from labelstore.threads import usual_threads

BATCH = 256
BATCHES_A_ROUND = 8
TOLERANCE = 1e-4
Seconds = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Batch:
    """What is asked for, and what the bare loops know of it beforehand."""

    rows: NDArray[np.int64]
    ids: list[str]
    boxes: NDArray[np.float64]
    places: list[Places]


Way = Callable[[Batch], object]


class Contestants:
    """Ours and the peers, open on one store."""

    def __init__(self, scratch: Path, memory: Path, rows: int, maps: Path | None) -> None:
        packed = pack(*load_maps(maps)).take(slice(rows))
        store = scratch / "store.zarr"
        write_store(store, packed.repeat(rows))
        self.threads = usual_threads()
        self.ours = LabelMapReader(store)
        self.plain = LabelMapReader(store, compiled=False)
        self.one_thread = LabelMapReader(store, threads=1)
        self.cached = LabelMapReader(store, cache=memory)
        for start in range(0, rows, BATCH):
            self.cached.read(np.arange(start, min(start + BATCH, rows)))
        self.reference = ReferenceFiles(scratch / "files")
        self.reference.write(self.ours.read(np.arange(len(packed))), rows)
        self.zarr = ZarrPython(store, self.ours.info)
        self.tensorstore = TensorStore(store, self.ours.info, self.threads)
        self.floor = Floor(store, self.ours.info)
        self._entries = entries_of(self.ours.read(random_rows(rows, BATCH)))  # of one batch: they stay in the cache

    def batch(self, seed: int) -> Batch:
        rows = random_rows(len(self.ours), BATCH, seed)
        places = self.floor.places(np.sort(rows))  # the order in which they lie on the disk, and in which the reader reads
        return Batch(rows, [self.ours.ids[row] for row in rows.tolist()], random_crops(len(rows), seed), places)

    def check(self, batch: Batch) -> None:
        """All ways must give the same labels."""
        expected = self.reference.soft_labels(batch.rows, batch.boxes)
        for name, way in self.pooling().items():
            worst = float(np.abs(way(batch) - expected).max())
            if not worst <= TOLERANCE:
                raise SystemExit(f"{name}: labels differ from the reference's by {worst:.1e}")

    def pooling(self) -> dict[str, Callable[[Batch], NDArray[np.float32]]]:
        """Ways from a batch to its soft labels."""
        return {
            "reference": lambda batch: self.reference.soft_labels(batch.rows, batch.boxes),
            "zarr": lambda batch: self.zarr.soft_labels(batch.rows, batch.boxes),
            "tensorstore": lambda batch: self.tensorstore.soft_labels(batch.rows, batch.boxes),
            "pool rows": lambda batch: self.ours.pool(batch.rows, batch.boxes),
            "pool ids": lambda batch: self.ours.pool(batch.ids, batch.boxes),
            "pool rows, NumPy only": lambda batch: self.plain.pool(batch.rows, batch.boxes),
            "pool rows, 1 thread": lambda batch: self.one_thread.pool(batch.rows, batch.boxes),
            "pool rows, cache": lambda batch: self.cached.pool(batch.rows, batch.boxes),
            "pool ids, cache": lambda batch: self.cached.pool(batch.ids, batch.boxes),
        }

    def floors(self) -> dict[str, Way]:
        """The least that labels take."""
        decode = self.floor
        return {
            "floor, loop": lambda batch: (decode.decode_loop(batch.places), scatter_add(self._entries)),
            "floor, threads": lambda batch: (decode.decode_threads(batch.places, self.threads), scatter_add(self._entries)),
        }

    def reading(self) -> dict[str, Way]:
        """Ways from a batch to its maps."""
        return {
            "decode, loop": lambda batch: self.floor.decode_loop(batch.places),
            "decode, threads": lambda batch: self.floor.decode_threads(batch.places, self.threads),
            "read rows": lambda batch: self.ours.read(batch.rows),
            "read ids": lambda batch: self.ours.read(batch.ids),
        }

    def singly(self) -> dict[str, Way]:
        """Ways through a batch one row at a time."""
        return {
            "torch.load": lambda batch: [self.reference.load(row) for row in batch.rows.tolist()],
            "bare loop": lambda batch: self.floor.decode_row_by_row(batch.places),
            "reader[row]": lambda batch: [self.ours[row] for row in batch.rows.tolist()],
            "reader[id]": lambda batch: [self.ours[key] for key in batch.ids],
            "pool one": lambda batch: [
                self.ours.pool([row], box) for row, box in zip(batch.rows.tolist(), batch.boxes[:, None], strict=True)
            ],
        }


def best_of(seconds: Seconds, *names: str) -> Sequence[float]:
    """The seconds of the fastest of several ways."""
    return min((seconds[name] for name in names), key=lambda values: float(np.median(values)))


def lines_of(pooled: Seconds, read: Seconds, single: Seconds) -> list[Line]:
    """What was asked for."""
    reference, floor = pooled["reference"], best_of(pooled, "floor, loop", "floor, threads")
    decode = best_of(read, "decode, loop", "decode, threads")

    def against(what: str, base: Sequence[float], found: Sequence[float], least: float | None = None) -> Line:
        return Line(what, ratios(base, found), least=least)

    return [
        against("pool by rows / reference", reference, pooled["pool rows"], 50),
        against("pool by ids / reference", reference, pooled["pool ids"], 50),
        against("pool by rows, decoded cache / reference", reference, pooled["pool rows, cache"], 100),
        against("pool by ids, decoded cache / reference", reference, pooled["pool ids, cache"], 100),
        against("pool by rows, NumPy only / reference", reference, pooled["pool rows, NumPy only"]),
        against("pool by rows, 1 thread / reference", reference, pooled["pool rows, 1 thread"]),
        against("pool by rows / zarr-python", pooled["zarr"], pooled["pool rows"]),
        against("pool by rows / TensorStore", pooled["tensorstore"], pooled["pool rows"]),
        against("pool by rows / floor", floor, pooled["pool rows"], 0.6),
        against("pool by ids / floor", floor, pooled["pool ids"], 0.6),
        against("read by rows / bare decode", decode, read["read rows"], 0.7),
        against("read by ids / bare decode", decode, read["read ids"], 0.7),
        against("reader[row] / bare loop", single["bare loop"], single["reader[row]"], 0.4),
        against("reader[id] / bare loop", single["bare loop"], single["reader[id]"], 0.4),
        against("reader[row] / torch.load", single["torch.load"], single["reader[row]"], 3),
        against("reader[id] / torch.load", single["torch.load"], single["reader[id]"], 3),
    ]


def show_rates(seconds: Seconds, batch: int) -> None:
    for name, values in seconds.items():
        middle = float(np.median(values))
        print(f"  {name:24} {middle * 1000:8.2f} ms a batch   {batch / middle:9,.0f} rows/s")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--maps", type=Path, metavar="FILE.npz")
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(cores())
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=memory) as cache:
        ways = Contestants(Path(scratch), Path(cache), options.rows, options.maps)
        numbers = range(options.rounds * BATCHES_A_ROUND)
        batches = [ways.batch(seed) for seed in numbers]
        ways.check(batches[0])
        rounds = [batches[start : start + BATCHES_A_ROUND] for start in numbers[::BATCHES_A_ROUND]]
        pooled = side_by_side(ways.pooling() | ways.floors(), rounds, fewer={"reference": 1, "zarr": 1})
        read = side_by_side(ways.reading(), rounds)
        single = side_by_side(ways.singly(), rounds, fewer={"torch.load": 2, "reader[row]": 4, "reader[id]": 4, "pool one": 2})
    size = min(BATCH, options.rows)
    threads = f"{ways.threads} threads each (torch {cores()}; zarr-python as it comes; single rows 1)"
    print(f"medians of {options.rounds} rounds, {size} random rows a batch out of {options.rows:,}, {threads}")
    seconds = {**pooled, **read, **single}
    show_rates(seconds, size)
    figures = {name: asdict(spread(values)) for name, values in seconds.items()}
    settings = {"rows": options.rows, "batch": size, "rounds": options.rounds, "threads": threads}
    report("speed, as multiples", lines_of(pooled, read, single), options.json, seconds_a_batch=figures, **settings)


if __name__ == "__main__":
    main()
