"""`labelstore annotate --workers 1` against a bare loop of one process with the same threads.

The bare loop decodes, resizes, runs the dense annotator and takes torch.topk; it stores nothing. It runs as anybody would
write it, and again with the allocator settings that annotate gives its workers. All are timed without their start-up
(imports, loading the model, starting the cluster), in interleaved rounds.

python benchmarks/annotate_throughput.py [--images 512] [--rounds 5] [--json FILE]
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
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from photos import make_photos

from labelstore.pipelines.cluster import KEEP_THE_HEAP

GOAL = 0.9


def bare_loop(folder: str, batch_size: int, threads: int) -> float:
    """Images a second."""
    import torch
    from PIL import Image

    from labelstore.pipelines.annotators import AnnotatorSpec, load_annotator

    torch.set_num_threads(threads)
    annotator = load_annotator(AnnotatorSpec("efficientnet-lite0"))
    side = annotator.info.preprocessing.input_size
    paths = sorted(Path(folder).iterdir())
    start = time.perf_counter()
    for first in range(0, len(paths), batch_size):
        pixels = [
            np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
            for path in paths[first : first + batch_size]
        ]
        batch = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        torch.topk(annotator.dense(batch), 5, dim=1)
    return len(paths) / (time.perf_counter() - start)


def pipeline(folder: Path, scratch: Path) -> float:
    """Images a second, as the command itself reports them."""
    store = scratch / "labels.zarr"
    shutil.rmtree(store, ignore_errors=True)
    command = ["labelstore", "annotate", str(folder), "--store", str(store), "--workers", "1", "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": _path()})
    return float(json.loads(out.stdout)["images_per_second"])


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def in_new_process(folder: Path, batch_size: int, threads: int, settings: Mapping[str, object]) -> float:
    code = f"import annotate_throughput as bench; print(bench.bare_loop({str(folder)!r}, {batch_size}, {threads}))"
    env = {**os.environ, **{key: str(value) for key, value in settings.items()}}
    here = Path(__file__).parent
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=here, env=env)
    return float(out.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8, help="of the bare loop; 8 is its best on 2 cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_photos(Path(scratch), options.images)
        rounds = []
        for _ in range(options.rounds):
            ours = pipeline(folder, Path(scratch))
            plain, kept = (in_new_process(folder, options.batch_size, threads, env) for env in ({}, KEEP_THE_HEAP))
            rounds.append((ours, plain, kept))
    ratios = [ours / plain for ours, plain, _ in rounds]
    kept_ratios = [ours / kept for ours, _, kept in rounds]
    result = {
        "images": options.images,
        "threads": threads,
        "annotate_images_per_second": statistics.median(ours for ours, _, _ in rounds),
        "bare_images_per_second": statistics.median(plain for _, plain, _ in rounds),
        "bare_heap_kept_images_per_second": statistics.median(kept for _, _, kept in rounds),
        "ratio_to_heap_kept_median": statistics.median(kept_ratios),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "goal": GOAL,
    }
    print(
        f"{options.images} JPEGs of 500x375, EfficientNet-Lite0 at 224 px, {threads} threads, {options.rounds} rounds, medians"
    )
    print(f"  bare loop               {result['bare_images_per_second']:7.1f} images/s")
    print(f"  the same, heap kept     {result['bare_heap_kept_images_per_second']:7.1f} images/s")
    print(f"  annotate --workers 1    {result['annotate_images_per_second']:7.1f} images/s")
    print(f"  ratio                   {result['ratio_median']:7.2f} ({min(ratios):.2f} to {max(ratios):.2f}; goal {GOAL})")
    low, high = min(kept_ratios), max(kept_ratios)
    print(f"  ratio to heap kept      {result['ratio_to_heap_kept_median']:7.2f} ({low:.2f} to {high:.2f})")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
