"""Annotators: classifiers loaded by name and made dense.

- `spec`: what names an annotator and what is known of it (plain data, no torch)
- `ensemble`: one annotator or several -> one map of logits; `precision`: what they run in
- `load`: name -> `Annotator`
- `timm_models`, `torchvision_models`, `builtin`, `custom`, `programs`: name -> `Network`, one module a source
- `network`, `fetching`, `weights`: what a source hands over; weights that cannot be downloaded; weights out of files
- `dense`, `pooling`, `locations`: the general mechanisms that give every location its logits
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from labelstore.pipelines.annotators.spec import AnnotatorInfo, AnnotatorSpec, EnsembleInfo, EnsembleSpec, Preprocessing

if TYPE_CHECKING:
    from labelstore.pipelines.annotators.ensemble import Ensemble, load_ensemble
    from labelstore.pipelines.annotators.load import Annotator, load_annotator

_WITH_TORCH = {"Annotator": "load", "load_annotator": "load", "Ensemble": "ensemble", "load_ensemble": "ensemble"}
__all__ = [
    "Annotator",
    "AnnotatorInfo",
    "AnnotatorSpec",
    "Ensemble",
    "EnsembleInfo",
    "EnsembleSpec",
    "Preprocessing",
    "load_annotator",
    "load_ensemble",
]


def __getattr__(name: str) -> Any:
    """Import torch for those only who load a model: plans and command lines use the specs alone."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
