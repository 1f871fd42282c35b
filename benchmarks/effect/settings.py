"""How much of everything, by kind of scenes; and the learning rates that the tuning found."""

from __future__ import annotations

from dataclasses import replace

from effect.learning import Schedule
from effect.running import CUTMIX, GLOBAL, ONLINE, RELABEL, SINGLE, SMOOTHED
from effect.study import Study

TEACHER = Schedule(8, batch=64, decay=5e-4, sgd=True)
STUDIES = {kind: Study(kind, 1000, Schedule(60), 6000, TEACHER, 0.1) for kind in ("digits", "stamps")}
STUDIES_ON_A_GPU = {
    kind: replace(
        study, images=4000, schedule=Schedule(40, 128), rates=(0.001, 0.002, 0.004), student="resnet18", scale=2, device="cuda"
    )
    for kind, study in STUDIES.items()
}
TINY = {kind: Study(kind, 64, Schedule(1, batch=16), 200, Schedule(1, batch=16), 0.003, tests=40) for kind in STUDIES}

RATES_FOUND = {
    "digits": {
        SINGLE: 0.02,
        SMOOTHED: 0.04,
        GLOBAL: 0.01,
        RELABEL: 0.01,
        SINGLE + CUTMIX: 0.01,
        RELABEL + CUTMIX: 0.01,
        ONLINE: 0.04,
    },
    "stamps": {
        SINGLE: 0.02,
        SMOOTHED: 0.01,
        GLOBAL: 0.005,
        RELABEL: 0.01,
        SINGLE + CUTMIX: 0.01,
        RELABEL + CUTMIX: 0.02,
        ONLINE: 0.01,
    },
}
"""On validation scenes; --full finds them anew."""
