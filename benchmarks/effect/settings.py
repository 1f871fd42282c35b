"""How much of everything, by kind of scenes; and the learning rates that the tuning of --full found."""

from __future__ import annotations

from effect.learning import Schedule
from effect.running import CUTMIX, GLOBAL, ONLINE, RELABEL, SINGLE, SMOOTHED
from effect.study import Study

STUDIES = {
    "digits": Study("digits", 1000, Schedule(20), 5000, Schedule(8), 0.003),
    "stamps": Study("stamps", 1000, Schedule(20), 5000, Schedule(8), 0.003),
}
STUDIES_ON_A_GPU = {
    kind: Study(kind, 4000, Schedule(40, 128), 20_000, Schedule(20, 128), 0.003, student="resnet18", scale=2, device="cuda")
    for kind in STUDIES
}
TINY = {kind: Study(kind, 64, Schedule(1, batch=16), 64, Schedule(1, batch=16), 0.003, tests=40) for kind in STUDIES}

RATES_FOUND = {
    kind: {
        SINGLE: 0.003,
        SMOOTHED: 0.003,
        GLOBAL: 0.003,
        RELABEL: 0.003,
        SINGLE + CUTMIX: 0.003,
        RELABEL + CUTMIX: 0.003,
        ONLINE: 0.003,
    }
    for kind in STUDIES
}
