"""A reader on a store of ImageNet's size: how soon it is ready, what memory it takes, whether it is as fast as on a small one.

Everything but the comparison runs in fresh processes; figures are medians of --runs of them. The store lies in the page cache
(one run before is not counted). Memory is a process's own (smaps_rollup: private pages, dirty or clean): with what NumPy and
numba take, without file pages and what forked processes share.

python benchmarks/big_store.py BIG && python benchmarks/reader_scale.py --store BIG [--runs 5] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
from crops import random_crops, random_rows
from measuring import Line, arguments, in_new_process, private_bytes, ratios, report, side_by_side, single, spread
from numpy.typing import NDArray

from labelstore import LabelMapReader
from labelstore.threads import usual_threads

BATCH = 256
BATCHES_A_ROUND = 8
CHILDREN, CHILD_BATCHES = 2, 50
SMALL_ROWS = 16384
_SAMPLES = 16
"""Rows that a pass over all shards reads of each."""
MB = 1e6


def start_up(store: str, by: str, seed: int) -> dict[str, float]:
    """Open, pool one batch, ten, and then some of every shard."""
    seconds, memory = {}, {"imported": private_bytes()}
    start = time.perf_counter()
    reader = LabelMapReader(store)
    seconds["open"] = time.perf_counter() - start
    memory["open"] = private_bytes()
    batches = [random_rows(len(reader), BATCH, seed * 10 + number) for number in range(10)]
    for number, rows in enumerate(batches):
        keys: Any = [reader.ids[row] for row in rows.tolist()] if by == "ids" else rows
        boxes = random_crops(len(rows), number)
        start = time.perf_counter()
        reader.pool(keys, boxes)
        seconds.setdefault("first batch", time.perf_counter() - start)
    memory["10 batches"] = private_bytes()
    pass_over_shards(reader)
    memory["all shards"] = private_bytes()
    return seconds | {f"memory, {name}": value for name, value in memory.items()}


def pass_over_shards(reader: LabelMapReader) -> None:
    """Read a few rows of every shard."""
    rows = np.arange(0, len(reader), max(reader.info.shard_size // _SAMPLES, 1))
    for start in range(0, len(rows), BATCH):
        reader.read(rows[start : start + BATCH])


def epoch(store: str) -> dict[str, Any]:
    """Read every row once, in random order; memory after each quarter, the order itself (8 bytes a row) included."""
    reader = LabelMapReader(store)
    rows = random_rows(len(reader), len(reader))
    memory = []
    start = time.perf_counter()
    for quarter in np.array_split(rows, 4):
        for batch in batches_of(quarter):
            reader.read(batch)
        memory.append(private_bytes())
    return {"seconds": time.perf_counter() - start, "memory": memory, "rows": len(rows)}


def batches_of(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def children(store: str) -> list[dict[str, int]]:
    """Memory of forked processes that read while each other does, after their parent has read."""
    reader = LabelMapReader(store)
    pass_over_shards(reader)
    reader.pool(random_rows(len(reader), BATCH), random_crops(min(BATCH, len(reader))))
    context = multiprocessing.get_context("fork")
    told: SimpleQueue[dict[str, int]] = context.SimpleQueue()
    processes = [context.Process(target=child, args=(reader, seed, told)) for seed in range(CHILDREN)]
    for process in processes:
        process.start()
    found = [told.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def child(reader: LabelMapReader, seed: int, told: SimpleQueue[dict[str, int]]) -> None:
    before = private_bytes()
    for number in range(CHILD_BATCHES):
        rows = random_rows(len(reader), BATCH, 1000 * (seed + 1) + number)
        reader.pool(rows, random_crops(len(rows), number))
    told.put({"start": before, "end": private_bytes()})


def big_and_small(big: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds a batch of the big store and of one of its first rows, in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch, "small.zarr")
        copy_rows(big, small)
        readers = {"big": LabelMapReader(big), "small": LabelMapReader(small)}
        for reader in readers.values():
            pass_over_shards(reader)
        numbers = range(rounds * BATCHES_A_ROUND)

        def way(reader: LabelMapReader) -> Callable[[int], object]:
            batches = [(random_rows(len(reader), BATCH, seed), random_crops(min(BATCH, len(reader)), seed)) for seed in numbers]
            return lambda number: reader.pool(*batches[number])

        ways = {name: way(reader) for name, reader in readers.items()}
        return side_by_side(ways, [numbers[start : start + BATCHES_A_ROUND] for start in numbers[::BATCHES_A_ROUND]])


def copy_rows(big: Path, small: Path) -> None:
    from maps import Packed, write_store  # torch and timm: not in the processes whose memory is measured

    from labelstore.fetch import RowFetcher
    from labelstore.storage import open_source

    reader = LabelMapReader(big)
    rows = RowFetcher(*open_source(big)).maps(np.arange(min(SMALL_ROWS, len(reader))))
    write_store(small, Packed(rows, reader.info))


def measure(store: Path, runs: int) -> dict[str, Any]:
    """What fresh processes say."""
    in_new_process("reader_scale", "start_up", store, "rows", 0)
    started = {
        by: [in_new_process("reader_scale", "start_up", store, by, run) for run in range(runs)] for by in ("rows", "ids")
    }
    return {
        "start_up": started,
        "epoch": in_new_process("reader_scale", "epoch", store),
        "children": in_new_process("reader_scale", "children", store),
    }


def lines_of(found: dict[str, Any], seconds: dict[str, list[float]]) -> list[Line]:
    by_rows, by_ids = found["start_up"]["rows"], found["start_up"]["ids"]
    memory = [value / MB for value in found["epoch"]["memory"]]

    def of(runs: list[dict[str, float]], name: str, scale: float) -> Any:
        return spread(run[name] * scale for run in runs)

    return [
        Line("open", of(by_rows + by_ids, "open", 1), " s", most=1),
        Line("first batch by rows", of(by_rows, "first batch", 1000), " ms", most=50),
        Line("first batch by ids", of(by_ids, "first batch", 1000), " ms", most=50),
        Line("memory before opening (imports)", of(by_rows, "memory, imported", 1 / MB), " MB"),
        Line("memory after opening", of(by_rows, "memory, open", 1 / MB), " MB", most=300),
        Line("memory after 10 batches", of(by_rows, "memory, 10 batches", 1 / MB), " MB", most=300),
        Line("memory after all shards", of(by_rows, "memory, all shards", 1 / MB), " MB", most=300),
        Line("memory after an epoch in random order", single(memory[-1]), " MB", most=300),
        Line("growth from the first quarter of the epoch to its end", single(memory[-1] - memory[0]), " MB", most=5),
        Line("the epoch", single(found["epoch"]["seconds"]), " s"),
        Line("a forked child after 50 batches", spread(each["end"] / MB for each in found["children"]), " MB", most=300),
        Line("pool, speed on the big store / on a small one", ratios(seconds["small"], seconds["big"]), least=0.8),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="as benchmarks/big_store.py builds it")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    store = options.store.absolute()
    found = measure(store, options.runs)
    seconds = big_and_small(store, options.rounds)
    info = LabelMapReader(store).info
    title = (
        f"{info.num_rows:,} rows in {info.num_shards} shards, {BATCH} random rows a batch, {usual_threads()} threads "
        f"(children 1), medians of {options.runs} processes and {options.rounds} rounds"
    )
    report(title, lines_of(found, seconds), options.json, processes=found, seconds_a_batch=seconds)


if __name__ == "__main__":
    main()
