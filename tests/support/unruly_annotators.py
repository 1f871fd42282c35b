"""Annotators that are slow, that kill their process, or that never finish: for interruptions and worker deaths.

Some are told by the environment, others by the colour of an image's top-left corner.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from toy_annotators import PIXELS, Colours

from labelstore.pipelines.annotators import Preprocessing

SECONDS = "UNRULY_SECONDS_A_BATCH"
DEATHS = "UNRULY_DEATHS_FOLDER"


def is_image(x: Tensor) -> bool:
    """Whether a batch is of images, and not the random one that a loaded annotator is tried on."""
    return bool((x >= 0).all())


class Slow(Colours):
    """Takes as many seconds a batch as the environment says; none by default, and none for single images."""

    def forward_dense(self, x: Tensor) -> Tensor:
        if is_image(x) and len(x) > 1:
            time.sleep(float(os.environ.get(SECONDS, "0")))
        return super().forward_dense(x)


class Deadly(Colours):
    """Kills its process on every batch for which there is a file in a folder that the environment names; takes the file."""

    def forward_dense(self, x: Tensor) -> Tensor:
        folder = os.environ.get(DEATHS)
        if folder and is_image(x) and _take_one(Path(folder)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward_dense(x)


class Allergic(Colours):
    """Ends its process on every image with a magenta top-left corner, hangs on every one with a cyan one."""

    def forward_dense(self, x: Tensor) -> Tensor:
        corners = x[:, :, 0, 0].tolist()
        if [1.0, 0.0, 1.0] in corners:
            os.kill(os.getpid(), signal.SIGSEGV)
        if [0.0, 1.0, 1.0] in corners:
            time.sleep(3600)
        return super().forward_dense(x)


class Hopeless(Colours):
    """Ends its process on every image, black ones included."""

    def forward_dense(self, x: Tensor) -> Tensor:
        if is_image(x):
            os._exit(3)
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


def allergic() -> tuple[nn.Module, Preprocessing]:
    return Allergic(), PIXELS


def hopeless() -> tuple[nn.Module, Preprocessing]:
    return Hopeless(), PIXELS


class Restless(Colours):
    """Gives other logits in every process, and every time it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(time.time_ns())

    def forward_dense(self, x: Tensor) -> Tensor:
        logits = super().forward_dense(x)
        return logits + torch.randn(logits.shape, generator=self.random) if is_image(x) else logits


def restless() -> tuple[nn.Module, Preprocessing]:
    return Restless(), PIXELS
