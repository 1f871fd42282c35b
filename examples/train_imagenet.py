"""ImageNet on soft labels, the paper's way: DDP, bfloat16, channels_last, CutMix, averaged weights, ReaL and ImageNetV2.

labelstore annotate imagenet/train --store imagenet.zarr --model timm:tf_efficientnet_l2.ns_jft_in1k_475
torchrun --nproc-per-node 8 examples/train_imagenet.py imagenet/train imagenet/val --store imagenet.zarr --recipe relabel
torchrun --nproc-per-node 8 examples/train_imagenet.py imagenet/train imagenet/val --store imagenet.zarr \\
    --recipe relabel-cutmix --real real.json --v2 imagenetv2-matched-frequency-format-val --out run-cutmix
python examples/train_imagenet.py imagenet/train imagenet/val --model timm:resnet18 --epochs 90   # single labels, one process

A run that was cut off goes on with the same command, from its last whole epoch; on a CPU to the same bits.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from imagenet.checkpoint import Checkpoint
from imagenet.data import begin_epoch, evaluation_loader, evaluation_sets, training_loader, training_set
from imagenet.options import parse
from imagenet.processes import Processes, joined
from imagenet.recipes import reported
from imagenet.student import averaged, make_model, make_optimizer, make_schedule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.transforms import v2


def main() -> None:
    given = parse(__doc__)
    with joined() as processes:
        run(given, processes)


def run(given: Namespace, processes: Processes) -> None:
    """Train from where the run stands to its end."""
    data, classes = training_set(given)
    sets = evaluation_sets(given, classes)
    loader = training_loader(data, given, processes)
    torch.manual_seed(given.seed)
    model = make_model(given.model, len(classes)).to(processes.device, memory_format=torch.channels_last)
    average = averaged(model, given.ema)
    optimizer = make_optimizer(model, given)
    schedule = make_schedule(optimizer, given, len(loader))
    given.out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(
        given.out / "checkpoint.pt", given, model=model, optimizer=optimizer, schedule=schedule, average=average
    )
    done = checkpoint.load()
    spread = DistributedDataParallel(model) if processes.count > 1 else model
    if processes.first:
        _announce(given, done)
    for epoch in range(done, given.epochs):
        begin_epoch(loader, epoch, given, processes)
        start = time.perf_counter()
        mix = _mixing(given, len(classes), epoch)
        loss = train_epoch(spread, average, loader, optimizer, schedule, mix, given, processes)
        said: dict[str, Any] = {"epoch": epoch + 1, "seconds": time.perf_counter() - start, "loss": loss}
        if (epoch + 1) % given.evaluate_every == 0 or epoch + 1 == given.epochs:
            for name, judged in (("", model), (" (averaged)", average)):
                if judged is not None:
                    said |= {key + name: share for key, share in evaluate(judged, sets, given, processes).items()}
        if processes.first:
            checkpoint.save(epoch + 1)
            _tell(said, given.out / "log.jsonl")


def train_epoch(
    model: nn.Module,
    average: Any,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    mix: v2.Transform | None,
    given: Namespace,
    processes: Processes,
) -> float:
    """Return the mean loss."""
    device, total = processes.device, torch.zeros((), device=processes.device)
    smoothing = given.smoothing if given.store is None else 0.0
    model.train()
    for images, labels in loader:
        inputs = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        targets = labels.to(device, non_blocking=True)
        if mix is not None:
            inputs, targets = mix(inputs, targets)
        with precision(given, device):
            loss = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(getattr(model, "module", model))
        total += loss.detach()
    means = torch.stack([total / len(loader), torch.ones_like(total)])
    sums = processes.added_up(means)
    return float(sums[0] / sums[1])


@torch.inference_mode()
def evaluate(model: nn.Module, sets: dict[str, Any], given: Namespace, processes: Processes) -> dict[str, float]:
    """Return the share of images whose best class is right, by set."""
    model.eval()
    said: dict[str, tuple[Tensor, Tensor]] = {}
    shares = {}
    for name, (folder, right) in sets.items():
        if folder.root not in said:  # ReaL judges the same answers as the validation labels
            said[folder.root] = answers(model, evaluation_loader(folder, given, processes), given, processes.device)
        found = right(*said[folder.root])
        counted = found >= 0
        sums = processes.added_up(torch.stack([found[counted].sum(), counted.sum()]).to(processes.device))
        shares[name] = float(sums[0] / sums[1])
    return shares


def answers(model: nn.Module, loader: Any, given: Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """The best class of every image, and its place in the set."""
    best, places = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
    for images, where in loader:
        with precision(given, device):
            logits = model(images.to(device, memory_format=torch.channels_last))
        best.append(logits.argmax(dim=1).cpu())
        places.append(where)
    return torch.cat(best), torch.cat(places)


def precision(given: Namespace, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bfloat16")


def _mixing(given: Namespace, classes: int, epoch: int) -> v2.Transform | None:
    steps: list[v2.Transform] = []
    if epoch < given.epochs - given.mix_off_epochs:
        steps += [v2.CutMix(alpha=given.cutmix, num_classes=classes)] if given.cutmix else []
        steps += [v2.MixUp(alpha=given.mixup, num_classes=classes)] if given.mixup else []
    return v2.RandomChoice(steps) if steps else None


def _announce(given: Namespace, done: int) -> None:
    expected = reported(given.model, given.recipe, given.store is not None)
    if expected is not None:
        print(f"the paper reports {expected} % for {given.model} with recipe {given.recipe}")
    if done:
        print(f"going on after epoch {done}")


def _tell(said: dict[str, Any], log: Path) -> None:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in said.items() if name not in ("epoch", "loss"))
    print(f"epoch {said['epoch']}: {figures}, loss {said['loss']:.4f}", flush=True)
    with log.open("a") as file:
        file.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
