"""The paper's settings, and what it reports for them (Yun et al. 2021; the public code's configurations).

All are 300 epochs of batches of 1,024 with a cosine from a warm-up of 5 epochs, colour jitter and lighting noise.
"""

from __future__ import annotations

from typing import Any

_COMMON = {"epochs": 300, "batch_size": 1024, "warmup_epochs": 5, "jitter": 0.4, "lighting": 0.1}
RECIPES: dict[str, dict[str, Any]] = {
    "relabel": {**_COMMON, "optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4},
    "relabel-cutmix": {**_COMMON, "optimizer": "adamp", "lr": 2e-3, "weight_decay": 1e-2, "cutmix": 1.0, "mix_off_epochs": 5},
}

REPORTED = {
    # model: top-1 on ImageNet's validation images with (its single labels, ReLabel, ReLabel and CutMix)
    "resnet18": (71.7, 72.5, 73.2),
    "resnet50": (77.5, 78.9, 80.2),
    "resnet101": (78.1, 80.7, 81.6),
    "rexnet_100": (77.9, 78.4, None),
    "efficientnet_b0": (77.4, 78.0, None),
    "efficientnet_b1": (79.2, 80.3, None),
    "efficientnet_b2": (80.3, 81.0, None),
    "efficientnet_b3": (81.7, 82.5, None),
}


def reported(model: str, recipe: str | None, soft: bool) -> float | None:
    """The paper's top-1 for a model (its prefix, ``timm:`` or ``torchvision:``, does not matter); None if it has none."""
    row = REPORTED.get(model.partition(":")[2] or model)
    if row is None or recipe is None:
        return None
    place = 0 if not soft else 2 if recipe == "relabel-cutmix" else 1
    return row[place]
