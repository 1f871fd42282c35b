"""Annotators: a classifier loaded by name and made dense.

- `spec`: what names an annotator and what is known of it (plain data, no torch)
- `load`: name -> `Annotator`
- `timm_models`, `torchvision_models`, `builtin`, `custom`: name -> `Network`, one module a source
- `network`, `fetching`: what a source hands over; weights that cannot be downloaded
- `dense`, `pooling`, `locations`: the general mechanisms that give every location its logits
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labelstore.pipelines.annotators.spec import AnnotatorInfo, AnnotatorSpec, Preprocessing

if TYPE_CHECKING:
    from labelstore.pipelines.annotators.load import Annotator, load_annotator

__all__ = ["Annotator", "AnnotatorInfo", "AnnotatorSpec", "Preprocessing", "load_annotator"]


def __getattr__(name: str) -> Any:
    """Import torch for those only who load a model: plans and command lines use the specs alone."""
    if name not in ("Annotator", "load_annotator"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from labelstore.pipelines.annotators import load

    return getattr(load, name)
