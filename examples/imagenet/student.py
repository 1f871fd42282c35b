"""The student, its optimiser, its learning rate, and the average of its weights."""

from __future__ import annotations

import math
from argparse import Namespace

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_model(name: str, classes: int) -> nn.Module:
    """A network of timm or torchvision without trained weights."""
    library, _, model = name.rpartition(":")
    if library == "timm":
        import timm

        made: nn.Module = timm.create_model(model, num_classes=classes)
        return made
    if library in ("", "torchvision"):
        import torchvision

        return torchvision.models.get_model(model, weights=None, num_classes=classes)
    raise SystemExit(f"--model {name}: expected timm:NAME or torchvision:NAME")


def make_optimizer(model: nn.Module, given: Namespace) -> torch.optim.Optimizer:
    if given.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), given.lr, 0.9, weight_decay=given.weight_decay, nesterov=True)
    if given.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), given.lr, weight_decay=given.weight_decay)
    from timm.optim import create_optimizer_v2

    # The reference decays all parameters alike.
    return create_optimizer_v2(model, given.optimizer, lr=given.lr, weight_decay=given.weight_decay, filter_bias_and_bn=False)


def make_schedule(optimizer: torch.optim.Optimizer, given: Namespace, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Up in a line over the warm-up, down in a cosine to 0; ``steps`` are those of an epoch."""
    rising, all_steps = given.warmup_epochs * steps, given.epochs * steps

    def factor(step: int) -> float:
        if step < rising:
            return step / rising
        return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, all_steps - rising))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential average of weights and buffers; None without a decay."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
