"""A shard's task on JPEG files against the same network's bare forward pass on random input that lies on the device.

The bare forward pass is the network as timm or torchvision builds it, channels_last, in the same mixed precision and batches.
It reads nothing, has no dense head, encodes nothing and copies nothing back. The shard's task reads, decodes and resizes files,
copies them over, runs the dense network, encodes label maps on the device and brings them back: all but the store, which a bare
machine has no packages for. Networks have random weights: their speed is the same.

Needs a CUDA device, torch, torchvision and timm, nothing else; --device cpu tries the same code, its figures mean nothing.

python benchmarks/gpu_annotate.py [--models torchvision:resnet50@224 ...] [--images 4096] [--batch-size 64] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Line, arguments, ratios, report, side_by_side, spread
from PIL import Image
from torch import Tensor, nn

from labelstore.pipelines import defaults
from labelstore.pipelines.annotators import AnnotatorSpec, Ensemble, EnsembleSpec, load_ensemble
from labelstore.pipelines.annotators.load import build_network
from labelstore.pipelines.annotators.precision import fit_precision, mixed
from labelstore.pipelines.choice import EncodingChoice, baseline, spectral_shape
from labelstore.pipelines.loading import LoadSpec, load_batches
from labelstore.pipelines.maps import Mapper, Stopwatch
from labelstore.pipelines.resources import plan_resources
from labelstore.pipelines.sources import FilePlace
from labelstore.pixels import AS_IMAGE_FOLDER
from labelstore.records import AnnotatorRecord
from labelstore.schema import StoreInfo

NO_DEVICE = 2
GOALS = {"timm:tf_efficientnet_l2@475": 0.95, "torchvision:resnet50@224": 0.80}
GOALS |= {f"torchvision:resnet50@{size}": 0.80 for size in (320, 448)}
SIDE, FILES, QUALITY = (500, 375), 512, 90
_STAGES = {
    "wait for images": "the task waits for files that are read, decoded and resized ahead",
    "forward": "another thread stacks and copies images, and launches the network",
    "encode": "another thread waits for the network, encodes, and copies label maps back",
    "annotate": "the task waits for label maps",
}


@dataclass
class Peer:
    """One network: how the pipeline has it, and how its library has it."""

    name: str
    annotators: Ensemble
    module: nn.Module
    info: StoreInfo
    size: int
    precision: str


def make_files(folder: Path, count: int, seed: int = 0) -> list[FilePlace]:
    """JPEGs of the size, and about the bytes, of ImageNet's: smooth shapes with fine grain."""
    rng = np.random.default_rng(seed)
    places = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(SIDE, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 12, (SIDE[1], SIDE[0], 3))
        file = folder / f"{number:05}.jpg"
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, quality=QUALITY)
        places.append(FilePlace(str(file)))
    return places


def load_peer(name: str, device: torch.device, compiled: bool) -> Peer:
    model, _, size = name.partition("@")
    spec = AnnotatorSpec(model, int(size), random_weights=True)
    annotators = load_ensemble(EnsembleSpec((spec,), compiled=compiled), device)
    found = annotators.info.combined
    how, choice = found.preprocessing, EncodingChoice()
    info = StoreInfo(
        num_rows=0,
        num_classes=found.num_classes,
        top_k=defaults.TOP_K,
        map_size=found.map_size,
        shard_size=1,
        id_bytes=1,
        annotator=AnnotatorRecord(found.name, found.weights_sha256, how.input_size, how.mean, how.std, how.interpolation),
        encoding=choice.name,
        spectral=spectral_shape(choice, found.num_classes, found.map_size),
        baseline=baseline(choice),
    )
    module = build_network(spec).module.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return Peer(name, annotators, module, info, int(size), fit_precision(None, device))


def shard_task(peer: Peer, places: list[FilePlace], options: Namespace, decoder: str, watch: Stopwatch) -> int:
    """Make the label maps of images; return how many are done."""
    ahead = 3 * options.batch_size if peer.annotators.device.type == "cuda" else 0
    how = LoadSpec(peer.annotators.inputs, AS_IMAGE_FOLDER, options.decode_threads, ahead, keep_jpegs=decoder == "nvjpeg")
    sizes = [min(options.batch_size, len(places) - first) for first in range(0, len(places), options.batch_size)]
    batches = Mapper(peer.annotators, peer.info, watch).map(watch.timed("wait for images", load_batches(places, sizes, how)))
    return sum(batch.errors.count("") for batch in batches)


def loading_alone(peer: Peer, places: list[FilePlace], options: Namespace) -> None:
    how = LoadSpec(peer.annotators.inputs, AS_IMAGE_FOLDER, options.decode_threads, 3 * options.batch_size)
    for _ in load_batches(places, [options.batch_size] * (len(places) // options.batch_size), how):
        pass


def forward_passes(run: Callable[[Tensor], Tensor], batch: Tensor, count: int) -> None:
    for _ in range(count):
        run(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)


def ways_of(peer: Peer, places: list[FilePlace], options: Namespace, watches: dict[str, Stopwatch]) -> dict[str, Any]:
    """What is timed, each over as many images."""
    device, count = peer.annotators.device, len(places) // options.batch_size
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(options.batch_size, 3, peer.size, peer.size, generator=generator).to(device)
    batch = batch.to(memory_format=torch.channels_last)
    bare = torch.compile(peer.module) if options.compile else peer.module

    def plain(images: Tensor) -> Tensor:
        with torch.inference_mode(), mixed(peer.precision, device):
            logits: Tensor = bare(images)
        return logits

    def task(decoder: str) -> Callable[[int], None]:
        def run(_: int) -> None:
            done = shard_task(peer, places, options, decoder, watches[decoder])
            if done != len(places):
                raise SystemExit(f"{peer.name}: {done} of {len(places)} images done")

        return run

    return {
        "bare forward": lambda _: forward_passes(plain, batch, count),
        "dense forward": lambda _: forward_passes(peer.annotators.members[0].dense, batch, count),
        "load files": lambda _: loading_alone(peer, places, options),
        **{f"shard task, {decoder}": task(decoder) for decoder in watches},
    }


def measure(name: str, places: list[FilePlace], options: Namespace) -> tuple[list[Line], dict[str, Any]]:
    device = torch.device(options.device)
    peer = load_peer(name, device, options.compile)
    decoders = ["pillow", "nvjpeg"] if device.type == "cuda" else ["pillow"]
    watches = {decoder: Stopwatch() for decoder in decoders}
    seconds = side_by_side(ways_of(peer, places, options, watches), [[0]] * options.rounds)
    rates = {way: spread(len(places) / np.asarray(values)) for way, values in seconds.items()}
    grid = "x".join(map(str, peer.info.map_size))
    print(f"\n{name}: {peer.precision}, batches of {options.batch_size}, maps of {grid}, {len(places)} images a round")
    for way, rate in rates.items():
        print(f"  {way:22} {rate.median:9.1f} images/s  ({rate.low:.1f} to {rate.high:.1f})")
    stages = {decoder: shares(watch.take(), seconds[f"shard task, {decoder}"]) for decoder, watch in watches.items()}
    for decoder, found in stages.items():
        print(f"  where a shard task's time goes, {decoder} (shares of its seconds; threads overlap)")
        for stage, share in found.items():
            print(f"    {stage:18} {share:6.1%}  {_STAGES[stage]}")
    lines = [
        Line(f"{name}, {decoder} / bare", ratios(seconds["bare forward"], seconds[f"shard task, {decoder}"]), least=goal)
        for decoder in decoders
        for goal in [GOALS.get(name) if decoder == "pillow" else None]
    ]
    return lines, {"images_per_second": {way: rate.median for way, rate in rates.items()}, "stages": stages}


def shares(spent: dict[str, float], rounds: list[float]) -> dict[str, float]:
    """Seconds by stage, of the seconds that the tasks took: one more of them ran uncounted."""
    whole = sum(rounds) / len(rounds) * (len(rounds) + 1)
    return {stage: spent.get(stage, 0.0) / whole for stage in _STAGES}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(GOALS), metavar="NAME@PX")
    parser.add_argument("--images", type=int, default=4096, help="a round")
    parser.add_argument("--batch-size", type=int, default=defaults.CUDA_BATCH_SIZE)
    parser.add_argument("--decode-threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return NO_DEVICE
    options.decode_threads = options.decode_threads or plan_resources(1, options.device, None).decode_threads
    options.images -= options.images % options.batch_size
    lines: list[Line] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = make_files(Path(scratch), min(options.images, FILES))
        places = [files[number % len(files)] for number in range(options.images)]
        for name in options.models:
            found, details[name] = measure(name, places, options)
            lines += found
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, to try the code"
    title = f"shard task / bare forward pass: {where}, torch {torch.__version__}, {options.decode_threads} decode threads"
    print()
    report(title, lines, options.json, details=details, device=where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
