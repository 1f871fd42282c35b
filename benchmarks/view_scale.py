"""`labelstore view` on a store of ImageNet's size: the first page, searches, memory; and soft labels a second over loopback.

The server runs as its users run it, in a process of its own, while the survey of all maps goes on beside the answers; and once
more when it is done.

python benchmarks/view_scale.py --store big.zarr [--rounds 15]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from measuring import Line, arguments, ratios, report, single, spread
from numpy.typing import NDArray

from labelstore import LabelMapReader

BATCH = 256
SEARCHES = "n01440764", "jpeg", "tench", "_1", "zzz", "cat", "n02124075_12"
START = re.compile(r"http://\S+")


class Server:
    """A running server, and one connection to it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        self._connection.request("GET" if body is None else "POST", path, body)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {data[:300]!r}")
        return data

    def seconds(self, path: str, body: bytes | None = None) -> float:
        start = time.perf_counter()
        self.ask(path, body)
        return time.perf_counter() - start

    def resident_bytes(self) -> int:
        """Of the server's process: all that it has in memory, code of its libraries included; the most so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

    def surveyed(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/api/ids?limit=1"))["surveyed"]
        return found


@contextmanager
def served(store: Path, cache: Path) -> Iterator[Server]:
    code = "from labelstore.cli.main import main; main()"
    command = [sys.executable, "-c", code, "view", str(store), "--port", "0", "--no-token"]
    more = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=more) as process:
        try:
            assert process.stdout is not None
            found = START.search(process.stdout.readline())
            if not found:
                raise SystemExit(f"{store}: the server does not start")
            yield Server(process, found[0])
        finally:
            process.terminate()


def first_page(server: Server) -> float:
    """The page, its modules and the first hundred images, one after the other."""
    paths = ["/", "/assets/style.css", "/assets/main.js", "/assets/images.js", "/assets/grid.js", "/assets/image.js"]
    return sum(server.seconds(path) for path in [*paths, "/api/info", "/api/ids?limit=100"])


def searching(server: Server, rounds: int) -> list[float]:
    """The slowest search of each round; a new word each time, so that nothing is answered out of memory."""
    found = []
    for number in range(rounds):
        words = SEARCHES if number == 0 else [f"{word}{number % 10}" for word in SEARCHES]
        found.append(max(server.seconds(f"/api/ids?q={quote(word)}&limit=100") for word in words))
    return found


def pooling(server: Server, store: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Soft labels a second of batches, by way: one request after the other, two at a time, and the reader in this process."""
    rng, reader = np.random.default_rng(0), LabelMapReader(store)
    clients = [server, Server(server.process, server.url)]
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        chosen = rng.integers(0, rows, (8, BATCH))
        boxes = (np.sort(rng.random((8, BATCH, 2, 2)), axis=2).reshape(8, BATCH, 4) * 0.9 + [0, 0, 0.1, 0.1]).round(5)
        bodies = [json.dumps({"rows": r, "boxes": b}).encode() for r, b in zip(chosen.tolist(), boxes.tolist(), strict=True)]

        def ask(client: Server, form: str, some: list[bytes]) -> None:
            for body in some:
                client.ask(f"/api/pool?format={form}", body)

        def at_once(bodies: list[bytes] = bodies) -> None:
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(ask, clients, ["raw", "raw"], [bodies[:4], bodies[4:]]))

        def here(chosen: NDArray[Any] = chosen, boxes: NDArray[Any] = boxes) -> None:
            for some, theirs in zip(chosen, boxes, strict=True):
                reader.pool(some, theirs)

        ways: dict[str, Callable[[], object]] = {"two at once": at_once, "reader": here}
        ways |= {form: partial(ask, server, form, bodies) for form in ("raw", "npy", "json")}
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            found.setdefault(name, []).append(chosen.size / (time.perf_counter() - start))
    return found


def one_box(server: Server, rows: int, rounds: int) -> list[float]:
    """What the page asks while a box is dragged: one crop, in JSON."""
    rng = np.random.default_rng(1)
    bodies = [
        json.dumps({"rows": [int(row)], "boxes": [[0.1, 0.2, 0.6, 0.9]]}).encode() for row in rng.integers(0, rows, rounds * 10)
    ]
    return [server.seconds("/api/pool", body) for body in bodies]


def wait(server: Server) -> float:
    start = time.monotonic()
    while not server.surveyed()["finished"]:
        time.sleep(1)
    return time.monotonic() - start


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--store", type=Path, required=True, help="as big_store.py makes it")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # an empty cache: the first start looks at all maps
        measure(options, Path(folder))


def measure(options: argparse.Namespace, cache: Path) -> None:
    start = time.perf_counter()
    with served(options.store, cache) as server:
        opening = time.perf_counter() - start
        rows = json.loads(server.ask("/api/healthz"))["rows"]
        page = first_page(server)
        before = searching(server, options.rounds)
        dragging = one_box(server, rows, options.rounds)
        survey = wait(server)
        after = searching(server, options.rounds)
        still = one_box(server, rows, options.rounds)
        labels = pooling(server, options.store, rows, options.rounds)
        memory = server.resident_bytes()
    with served(options.store, cache) as server:
        again = wait(server)
    lines = [
        Line("start of the command to its first answer", single(opening), " s"),
        Line("first page, right after", single(1000 * page), " ms", most=1000),
        Line("the slowest of 7 searches, while maps are looked at", spread(1000 * np.array(before)), " ms", most=300),
        Line("the slowest of 7 searches", spread(1000 * np.array(after)), " ms", most=300),
        Line("a box is moved, while maps are looked at", spread(1000 * np.array(dragging)), " ms", most=20),
        Line("a box is moved", spread(1000 * np.array(still)), " ms", most=20),
        Line("soft labels a second, raw", spread(labels["raw"]), "", least=20_000),
        Line("soft labels a second, raw, two requests at once", spread(labels["two at once"]), "", least=20_000),
        Line("soft labels a second, npy", spread(labels["npy"]), "", least=20_000),
        Line("soft labels a second, JSON of the best five", spread(labels["json"]), ""),
        Line("raw, two at once / the reader in this process", ratios(labels["two at once"], labels["reader"])),
        Line("all maps looked at after", single(survey), " s"),
        Line("the same at the second start, out of the cache", single(again), " s"),
        Line("most memory of the server (resident)", single(memory / 1e6), " MB", most=500),
    ]
    report(f"labelstore view, {rows:,} rows", lines, options.json, rows=rows)


if __name__ == "__main__":
    main()
