"""`labelstore annotate --workers 1` and `--workers 2` against the best of several bare loops of one process, all cores in use.

A bare loop decodes and resizes JPEGs, runs a network (EfficientNet-Lite0, or any of timm's with random weights), puts its head
on every location and takes torch.topk; it stores nothing. It runs one step after the other or with threads that decode a batch
together, with several batch sizes, in the memory format that is fastest, and again with the settings of allocator and OpenMP
that annotate gives its workers; annotate does all of its work: encoding, checksums, a durable store. All are timed without
their start-up (imports, loading the model, starting the cluster), in interleaved rounds.

python benchmarks/annotate_throughput.py [--images 1024] [--rounds 5] [--network resnet50] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from photos import make_photos

from labelstore.pipelines.resources import KEEP_THE_HEAP, SPIN_BRIEFLY

GOAL = 0.95
LOOPS_KEPT = 3
SHARDS = ("--shard-size", "64")
"""As a few thousand images have by default: a batch is never larger than a shard."""
NETWORK = "LABELSTORE_BENCH_NETWORK"
OURS = ("annotate --workers 1", "annotate --workers 2")
SETTINGS: dict[str, Mapping[str, object]] = {"": {}, ", annotate's settings": {**KEEP_THE_HEAP, **SPIN_BRIEFLY}}


def random_network() -> Any:
    """A factory for `annotate --model`: the network that the environment names, its weights the same in every process."""
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model(os.environ[NETWORK])


def bare_loops(folder: str, threads: int, wanted: Sequence[str] | None = None) -> dict[str, float]:
    """Images a second of the wanted kinds of loop, by default of every one."""
    import torch
    from PIL import Image

    from labelstore.pipelines.annotators import AnnotatorSpec, builtin

    torch.set_num_threads(threads)
    lite = builtin.build(AnnotatorSpec(builtin.NAME))
    module: Any = random_network() if NETWORK in os.environ else lite.module
    module = module.eval().to(memory_format=torch.channels_last)
    head, side = module.get_classifier(), lite.preprocessing.input_size
    paths = sorted(Path(folder).iterdir())

    def load(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))

    def forward(pixels: list[np.ndarray]) -> None:
        batch = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        features = module.forward_features(batch).permute(0, 2, 3, 1)
        torch.topk(head(features), 5, dim=-1)

    def run(name: str, batch_size: int, load_all: Callable[[list[Path]], list[np.ndarray]]) -> None:
        if wanted is not None and name not in wanted:
            return
        start = time.perf_counter()
        for first in range(0, len(paths), batch_size):
            forward(load_all(paths[first : first + batch_size]))
        found[name] = len(paths) / (time.perf_counter() - start)

    found: dict[str, float] = {}
    with torch.inference_mode(), ThreadPoolExecutor(threads) as executor:
        for batch_size in (8, 16, 32):
            forward([load(path) for path in paths[:batch_size]])
            run(f"one step after the other, batches of {batch_size}", batch_size, lambda some: [*map(load, some)])
            run(f"threads decode a batch of {batch_size}", batch_size, lambda some: [*executor.map(load, some)])
    return found


def in_new_process(
    folder: Path, threads: int, settings: Mapping[str, object], wanted: Sequence[str] | None = None
) -> dict[str, float]:
    call = f"bench.bare_loops({str(folder)!r}, {threads}, {wanted!r})"
    code = f"import json, annotate_throughput as bench; print(json.dumps({call}))"
    env = {**os.environ, **{key: str(value) for key, value in settings.items()}}
    here = Path(__file__).parent
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=here, env=env)
    rates: dict[str, float] = json.loads(out.stdout)
    return rates


def pipeline(folder: Path, scratch: Path, workers: str) -> float:
    """Images a second, as the command itself reports them."""
    store = scratch / "labels.zarr"
    shutil.rmtree(store, ignore_errors=True)
    command = ["labelstore", "annotate", str(folder), "--store", str(store), "--workers", workers, "--json", *SHARDS]
    if NETWORK in os.environ:
        command += ["--model", "annotate_throughput:random_network", "--image-size", "224"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    return float(json.loads(out.stdout)["images_per_second"])


def _environment() -> dict[str, str]:
    """One in which the command is found, and this module."""
    places = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(Path(__file__).parent)}
    return {**os.environ, **{name: os.pathsep.join(filter(None, (at, os.environ.get(name)))) for name, at in places.items()}}


def measure(folder: Path, scratch: Path, rounds: int, threads: int) -> dict[str, list[float]]:
    """Images a second of every way, round by round; after the first one, of each setting's three fastest loops only."""
    found: dict[str, list[float]] = defaultdict(list)
    wanted: dict[str, Sequence[str] | None] = dict.fromkeys(SETTINGS)
    for _ in range(rounds):
        for way in OURS:
            found[way].append(pipeline(folder, scratch, way.split()[-1]))
        for label, settings in SETTINGS.items():
            rates = in_new_process(folder, threads, settings, wanted[label])
            wanted[label] = sorted(rates, key=rates.__getitem__)[-LOOPS_KEPT:]
            for loop, rate in rates.items():
                found[f"bare loop: {loop}{label}"].append(rate)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", help="one of timm's, with random weights, at 224 px  [default: EfficientNet-Lite0]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.network:
        os.environ[NETWORK] = options.network
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(make_photos(Path(scratch), options.images), Path(scratch), options.rounds, threads)
    medians = {way: statistics.median(rates) for way, rates in found.items()}
    network = options.network or "EfficientNet-Lite0"
    print(f"{options.images} JPEGs of 500x375, {network} at 224 px, {threads} threads, {options.rounds} rounds, medians")
    for way, rate in medians.items():
        print(f"  {way:75} {rate:7.1f} images/s")
    result: dict[str, Any] = {"images": options.images, "threads": threads, "images_per_second": medians, "goal": GOAL}
    for label in SETTINGS:
        timed = [way for way in medians if way not in OURS and len(found[way]) == options.rounds]
        loops = [way for way in timed if way.endswith(", annotate's settings") == bool(label)]
        best = max(loops, key=medians.__getitem__)
        for way in OURS:
            ratios = [ours / bare for ours, bare in zip(found[way], found[best], strict=True)]
            result[f"{way} / best bare loop{label}"] = statistics.median(ratios)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"  {way} / best bare loop{label}: {statistics.median(ratios):.2f} ({spread}; goal {GOAL})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
