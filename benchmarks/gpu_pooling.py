"""Soft labels where the model is: pooling on the GPU, and what soft labels cost a training step.

Pooling: packed maps that lie on the device already, by `labelstore.torch.pool`, as it is and compiled, against dense maps and
roi_align on the device. A step: ResNet-50, bfloat16 autocast, channels_last, synthetic images on the device; with integer
targets, and with the soft labels of maps that come over the bus for each batch (from pinned memory, 3.4 kB an image of 15x15).

Needs a CUDA device; --device cpu tries the same code without one, its figures mean nothing.

python benchmarks/gpu_pooling.py [--maps FILE.npz] [--count 1024] [--batch 256] [--rounds 15] [--steps 20] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from crops import random_crops
from maps import CLASSES, Packed, load_maps, pack
from measuring import Line, arguments, ratios, report, side_by_side
from reference import dense_pool
from torch import Tensor
from torch.nn.functional import cross_entropy

from labelstore.torch import pool

NO_DEVICE = 2
TOLERANCE = 1e-4
_BATCHES = 4
Maps = Mapping[str, Tensor]


def on(device: torch.device, maps: Maps) -> dict[str, Tensor]:
    return {name: part.to(device, non_blocking=True) for name, part in maps.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def packed_batch(packed: Packed, count: int, seed: int, pinned: bool) -> dict[str, Tensor]:
    """A batch of maps with their boxes, as a DataLoader with ``pin_memory`` hands it over."""
    order = np.random.default_rng(seed).permutation(count)
    batch = {name: torch.from_numpy(part[order]) for name, part in packed.repeat(count).arrays.items()}
    batch["box"] = torch.from_numpy(random_crops(count, seed))
    return {name: part.pin_memory() for name, part in batch.items()} if pinned else batch


def reference_maps(maps: Maps) -> Tensor:
    """The reference's float32 ``[B, 2, K, H, W]`` of the same maps."""
    top, step = maps["score_range"][:, :, None, None, None].unbind(1)
    scores = top - step * maps["scores"].cumsum(dim=1, dtype=torch.int32).float()
    return torch.stack([scores, maps["classes"].float()], dim=1)


def ours(maps: Maps) -> Tensor:
    return pool(maps, maps["box"], CLASSES)


def pooling(device: torch.device, packed: Packed, count: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds for the soft labels of ``count`` maps, by way."""
    maps = on(device, packed_batch(packed, count, 0, pinned=False))
    reference, compiled = reference_maps(maps), torch.compile(ours)
    ways: dict[str, Callable[[], Tensor]] = {
        "dense": lambda: dense_pool(reference, maps["box"]),
        "pool": lambda: ours(maps),
        "pool, compiled": lambda: compiled(maps),
    }
    for name, way in ways.items():
        worst = float((way() - ways["dense"]()).abs().max())
        if not worst <= TOLERANCE:
            raise SystemExit(f"{name}: labels differ from the dense way's by {worst:.1e}")
    return timed(ways, device, rounds, steps)


def training(device: torch.device, packed: Packed, batch: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a training step, by where its targets come from."""
    step, compiled = training_step(device, batch), torch.compile(ours)
    cuda = device.type == "cuda"
    batches = [packed_batch(packed, batch, seed, pinned=cuda) for seed in range(_BATCHES)]
    references = [reference_maps(maps).pin_memory() if cuda else reference_maps(maps) for maps in batches]
    targets = torch.randint(CLASSES, (batch,), device=device)
    turn = iter(range(sys.maxsize))

    def dense() -> Tensor:
        place = next(turn) % _BATCHES
        return dense_pool(references[place].to(device, non_blocking=True), batches[place]["box"].to(device, non_blocking=True))

    ways: dict[str, Callable[[], Tensor]] = {
        "integer targets": lambda: step(targets),
        "soft labels": lambda: step(ours(on(device, batches[next(turn) % _BATCHES]))),
        "soft labels, compiled": lambda: step(compiled(on(device, batches[next(turn) % _BATCHES]))),
        "soft labels, dense": lambda: step(dense()),
    }
    return timed(ways, device, rounds, steps)


def training_step(device: torch.device, batch: int) -> Callable[[Tensor], Tensor]:
    """A step of ResNet-50 on images that stay where they are: target -> loss."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(batch, 3, 224, 224, device=device).to(memory_format=torch.channels_last)

    def step(target: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = cross_entropy(model(images), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    return step


def timed(ways: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a call; ``steps`` calls a round are queued, and the device waited for after the last."""

    def queue(way: Callable[[], object]) -> Callable[[int], object]:
        def run(count: int) -> None:
            for _ in range(count):
                way()
            wait(device)

        return run

    for way in ways.values():
        queue(way)(3)
    found = side_by_side({name: queue(way) for name, way in ways.items()}, [[steps]] * rounds)
    return {name: [value / steps for value in values] for name, values in found.items()}


def lines_of(pooled: Mapping[str, list[float]], trained: Mapping[str, list[float]], count: int) -> list[Line]:
    plain = trained["integer targets"]
    return [
        Line(f"pool of {count} maps / dense maps and roi_align", ratios(pooled["dense"], pooled["pool"])),
        Line("the same, compiled", ratios(pooled["dense"], pooled["pool, compiled"])),
        Line("step with soft labels / with integers", ratios(trained["soft labels"], plain), most=1.01),
        Line("the same, pool compiled", ratios(trained["soft labels, compiled"], plain), most=1.01),
        Line("the same, dense maps and roi_align", ratios(trained["soft labels, dense"], plain)),
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--maps", type=Path, metavar="FILE.npz")
    parser.add_argument("--count", type=int, default=1024, help="maps pooled at once")
    parser.add_argument("--batch", type=int, default=256, help="of a training step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="calls a round")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return NO_DEVICE
    torch.backends.cudnn.benchmark = True
    packed = pack(*load_maps(options.maps))
    pooled = pooling(device, packed, options.count, options.rounds, options.steps)
    trained = training(device, packed, options.batch, options.rounds, options.steps)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, to try the code"
    print(f"{name}, torch {torch.__version__}; medians of {options.rounds} rounds of {options.steps} calls")
    for what, seconds in {**pooled, **trained}.items():
        print(f"  {what:24} {np.median(seconds) * 1000:9.3f} ms")
    lines = lines_of(pooled, trained, options.count)
    report(
        f"{options.count} maps pooled; ResNet-50, batch {options.batch}, bfloat16",
        lines,
        options.json,
        pooling=pooled,
        step=trained,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
