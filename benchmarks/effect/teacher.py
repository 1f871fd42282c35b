"""The study's annotators, as anybody brings one to labelstore: ``--model effect.teacher:digits --weights FILE``."""

from __future__ import annotations

from effect.networks import TEST, Network, teacher
from effect.objects import class_names
from labelstore.pipelines.annotators import Preprocessing

_PIXELS = Preprocessing(TEST, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")


def digits() -> tuple[Network, Preprocessing]:
    return teacher(class_names("digits")), _PIXELS


def stamps() -> tuple[Network, Preprocessing]:
    return teacher(class_names("stamps")), _PIXELS
