"""Files of one map each into a store, against a bare loop of `torch.load` over the same files on as many cores; and the store
in another encoding.

Files are as ReLabel's (torch.save of float32 [2, 5, H, W]), made of maps from a file with `classes` uint16 and `scores` float32
[N, K', H, W] (--maps FILE.npz), or of maps made here of crops of the sample photographs.

python benchmarks/importing.py [--maps FILE.npz] [--files 100000] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maps import imagenet_ids, load_maps
from measuring import Line, arguments, cores, ratios, report, single, spread

from labelstore.summary import folder_bytes

GOAL_RATE, GOAL_BYTES = 0.9, 4.8
_LOOP = """
import sys, time, torch
paths = sys.stdin.read().split()
torch.load(paths[0], weights_only=True)
start = time.perf_counter()
for path in paths:
    torch.load(path, weights_only=True)
print(time.perf_counter() - start)
"""


def write_files(root: Path, count: int, maps: Path | None) -> list[Path]:
    classes, scores = load_maps(maps)
    tensors = torch.from_numpy(np.stack([scores, classes.astype(np.float32)], axis=1))
    files = []
    for number, image_id in enumerate(imagenet_ids(count, max(50, -(-count // 1000)))):
        file = (root / image_id).with_suffix(".pt")
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors[number % len(tensors)].clone(), file)
        files.append(file)
    return files


def loop_rate(files: list[Path], processes: int) -> float:
    """Files/s of a bare loop in so many processes side by side, each over its share."""
    shares = [files[start::processes] for start in range(processes)]
    running = [
        subprocess.Popen([sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in shares
    ]
    for process, share in zip(running, shares, strict=True):
        assert process.stdin is not None
        process.stdin.write("\n".join(map(str, share)))
        process.stdin.close()
    seconds = [float(process.stdout.read()) for process in running if process.stdout is not None]
    for process in running:
        process.wait()
    return len(files) / max(seconds)


def command(*arguments: object) -> dict[str, Any]:
    """Run the command line; return its summary, and the whole command's seconds."""
    script = Path(sysconfig.get_path("scripts"), "labelstore")
    start = time.perf_counter()
    done = subprocess.run([str(script), *map(str, arguments), "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "whole_command_seconds": round(time.perf_counter() - start, 2)}


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    files, store = write_files(folder / "maps", options.files, options.maps), folder / "s.zarr"
    ways = {"one process": (1, 0), f"{cores()} processes": (cores(), cores())}
    bare: dict[str, list[float]] = {name: [] for name in ways}
    imported: dict[str, list[float]] = {name: [] for name in ways}
    commands: list[float] = []
    for _ in range(options.rounds):
        for name, (processes, workers) in ways.items():
            shutil.rmtree(store, ignore_errors=True)
            bare[name].append(loop_rate(files, processes))
            found = command("import", "relabel", folder / "maps", store, "--axes", "yx", "--workers", workers)
            imported[name].append(found["images_per_second"])
            commands.append(found["whole_command_seconds"])
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    source_bytes, store_bytes = folder_bytes(folder / "maps"), folder_bytes(store)
    ids = [file.relative_to(folder / "maps").with_suffix(".JPEG").as_posix() for file in files[: options.converted]]
    (folder / "ids.txt").write_text("\n".join(ids))
    command("subset", store, folder / "some.zarr", "--ids", folder / "ids.txt")
    converted = command("convert", folder / "some.zarr", folder / "spectral.zarr", "--encoding", "spectral")
    distance = converted["imported"]["distance"]
    lines = [
        *(Line(f"files/s, import / torch.load, {name}", ratios(imported[name], bare[name]), least=GOAL_RATE) for name in ways),
        *(Line(f"files/s of torch.load, {name}", spread(bare[name]), unit="") for name in ways),
        *(Line(f"files/s of import, {name}", spread(imported[name]), unit="") for name in ways),
        Line("seconds of the whole command", spread(commands), unit=" s"),
        Line("MB, the largest process", single(largest / 1e6), unit=""),
        Line("source bytes / store bytes", single(source_bytes / store_bytes), least=GOAL_BYTES),
        Line("bytes a file", single(source_bytes / len(files)), unit=""),
        Line("bytes a map", single(store_bytes / len(files)), unit=""),
        Line("maps/s of convert to spectral", single(converted["images_per_second"]), unit=""),
        Line("bytes a spectral map", single(converted["bytes_a_map"]), unit=""),
        Line("L1 distance that it adds", single(distance["l1"]), unit=""),
        Line("same best class", single(distance["agreement"]), unit=""),
    ]
    return lines, {"files": len(files), "converted": converted["done"]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--converted", type=int, default=10_000, help="of the maps, to spectral")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines, more = measure(Path(folder), options)
    report(f"{more['files']:,} files of one map, {options.rounds} rounds", lines, options.json, **more)


if __name__ == "__main__":
    main()
