"""Annotators that are slow, or that kill their process: for interruptions and worker deaths. Told by the environment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor, nn
from toy_annotators import PIXELS, Colours

from labelstore.pipelines.annotators import Preprocessing

SECONDS = "UNRULY_SECONDS_A_BATCH"
DEATHS = "UNRULY_DEATHS_FOLDER"


def is_image(x: Tensor) -> bool:
    """Whether a batch is of images, and not the random one that a loaded annotator is tried on."""
    return bool((x >= 0).all())


class Slow(Colours):
    """Takes as many seconds a batch as the environment says; none by default."""

    def forward_dense(self, x: Tensor) -> Tensor:
        if is_image(x):
            time.sleep(float(os.environ.get(SECONDS, "0")))
        return super().forward_dense(x)


class Deadly(Colours):
    """Kills its process on every batch for which there is a file in a folder that the environment names; takes the file."""

    def forward_dense(self, x: Tensor) -> Tensor:
        folder = os.environ.get(DEATHS)
        if folder and is_image(x) and _take_one(Path(folder)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward_dense(x)


def _take_one(folder: Path) -> bool:
    for file in folder.iterdir():
        try:
            file.unlink()
        except FileNotFoundError:  # another process was faster
            continue
        return True
    return False


def slow() -> tuple[nn.Module, Preprocessing]:
    return Slow(), PIXELS


def deadly() -> tuple[nn.Module, Preprocessing]:
    return Deadly(), PIXELS
