"""A store behind a slow line: a real S3 server on this machine, every request 50 ms longer on its way.

Reading by ranges, and by shards that are kept here, against the same store in a folder; annotating there against annotating
into a folder. Needs the server of the tests (SeaweedFS); the line is tests/support/slow_line.py.

python benchmarks/remote_reading.py [--rows 32768] [--milliseconds 50] [--json FILE]
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from maps import load_maps, pack, write_store
from measuring import Line, arguments, ratios, report, side_by_side, single, spread
from photos import make_photos

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from object_server import as_environment, make_bucket, object_server
from slow_line import SlowLine, slow_line

from labelstore import LabelMapReader
from labelstore.pipelines.sink import open_sink

BATCH, BATCHES, ROUNDS = 256, 8, 31
PHOTOS, ANNOTATE_ROUNDS = 256, 3
BUCKET = "bucket"
BOX = (0.1, 0.2, 0.7, 0.9)


@contextlib.contextmanager
def slow_server(folder: Path, seconds: float) -> Iterator[SlowLine]:
    """A server with an empty bucket, and the line to it, which the environment names."""
    with object_server(folder) as server, slow_line(server.address, seconds) as line, as_environment(line):
        make_bucket()
        yield line


def upload(local: Path, url: str) -> None:
    sink = open_sink(url)
    for folder, _, names in os.walk(local):
        sink.put({(Path(folder) / name).relative_to(local).as_posix(): (Path(folder) / name).read_bytes() for name in names})


def pooling(reader: LabelMapReader) -> Callable[[np.ndarray], object]:
    boxes = np.tile(BOX, (BATCH, 1))
    return lambda rows: reader.pool(rows, boxes[: len(rows)])


def epoch(reader: LabelMapReader, rows: int, seed: int) -> float:
    """Seconds for every row once."""
    order, pool = np.random.default_rng(seed).permutation(rows), pooling(reader)
    start = time.perf_counter()
    for at in range(0, rows, BATCH):
        pool(order[at : at + BATCH])
    return time.perf_counter() - start


def reading(local: Path, url: str, cache: Path, line: SlowLine, rows: int) -> tuple[list[Line], dict[str, Any]]:
    """The reader in its three ways."""
    here = LabelMapReader(local)
    start = time.perf_counter()
    ranges = LabelMapReader(url)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    kept = LabelMapReader(url, cache_dir=cache)
    first = time.perf_counter() - start + epoch(kept, rows, 0)
    known = line.requests
    pooling(ranges)(np.random.default_rng(1).integers(0, rows, BATCH))
    first_batch = line.requests - known
    chance = np.random.default_rng(2)
    batches = [[chance.integers(0, rows, BATCH) for _ in range(BATCHES)] for _ in range(ROUNDS)]
    seconds = side_by_side({"folder": pooling(here), "kept": pooling(kept)}, batches)
    pooling(ranges)(np.arange(0, rows, here.info.shard_size))  # all indexes are known from now on
    before = line.requests
    slow = side_by_side({"ranges": pooling(ranges)}, [some[:1] for some in batches])["ranges"]
    requests = (line.requests - before) / (ROUNDS + 1)
    lines = [
        Line(
            "kept shards, after the first epoch: seconds a batch against a folder's",
            ratios(seconds["kept"], seconds["folder"]),
            most=1.05,
        ),
        Line("kept shards: first epoch, opening and fetching included", single(first), "s"),
        Line("a folder: an epoch", single(epoch(here, rows, 0)), "s"),
        Line("ranges: opening", single(opened), "s"),
        Line(f"ranges: a batch of {BATCH}", spread(slow), "s"),
        Line(f"ranges: requests a batch of {BATCH}", single(requests), ""),
        Line("ranges: requests of the first batch, which reads commits and indexes", single(first_batch), ""),
    ]
    return lines, {"seconds a batch": seconds, "ranges": slow}


def images_a_second(photos: Path, store: str) -> float:
    command = ["labelstore", "annotate", str(photos), "--store", store, "--workers", "1", "--shard-size", "64", "--json"]
    command += ["--model", "annotate_throughput:random_network", "--image-size", "224"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    return float(json.loads(out.stdout)["images_per_second"])


def annotating(scratch: Path) -> tuple[list[Line], dict[str, Any]]:
    """ResNet-50 by one worker, into a folder and into the bucket, in turns."""
    photos = make_photos(scratch / "photos", PHOTOS)
    found: dict[str, list[float]] = {"folder": [], "bucket": []}
    for _ in range(ANNOTATE_ROUNDS):
        found["folder"].append(images_a_second(photos, str(scratch / "annotated.zarr")))
        shutil.rmtree(scratch / "annotated.zarr")
        found["bucket"].append(images_a_second(photos, f"s3://{BUCKET}/{uuid.uuid4().hex}.zarr"))
    lines = [
        Line("annotate into the bucket: images/s against a folder's", ratios(found["bucket"], found["folder"]), least=0.9),
        Line("annotate into the bucket", spread(found["bucket"]), "/s"),
    ]
    return lines, {"images a second": found}


def _environment() -> Mapping[str, str]:
    places = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(Path(__file__).parent)}
    joined = {name: os.pathsep.join(filter(None, (at, os.environ.get(name)))) for name, at in places.items()}
    return {**os.environ, **joined, "LABELSTORE_BENCH_NETWORK": "resnet50"}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=32_768)
    parser.add_argument("--milliseconds", type=float, default=50, help="what a request's way there and back takes longer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, slow_server(Path(name), options.milliseconds / 1000) as line:
        scratch = Path(name)
        local, url = scratch / "local.zarr", f"s3://{BUCKET}/labels.zarr"
        write_store(local, pack(*load_maps(None)).repeat(options.rows))
        upload(local, url)
        lines, raw = reading(local, url, scratch / "cache", line, options.rows)
        more, also = annotating(scratch)
    report(f"a line of {options.milliseconds:g} ms, {options.rows:,} rows", [*lines, *more], options.json, **raw, **also)


if __name__ == "__main__":
    main()
