"""What an epoch of each arm takes: all arms in one process, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from measuring import side_by_side

from effect import networks
from effect.arms import with_cutmix
from effect.learning import Schedule, train
from effect.running import CUTMIX, STORE, make_arm
from effect.study import Workshop


def epoch_seconds(shop: Workshop, names: Sequence[str], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of an epoch of each arm (training as the study does, one thread), by round."""
    torch.set_num_threads(1)
    material = shop.material(STORE)

    def way(name: str) -> Callable[[int], object]:
        arm = make_arm(shop, name.removesuffix(CUTMIX))(material)
        data, labels = with_cutmix(arm, 0) if name.endswith(CUTMIX) else arm
        model = networks.student(shop.study.classes, shop.study.student).to(shop.study.device)
        return lambda seed: train(model, data, labels, 0.001, Schedule(1), seed)

    return side_by_side({name: way(name) for name in names}, [[number] for number in range(rounds)])
