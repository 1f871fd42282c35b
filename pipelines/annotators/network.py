"""What a source of annotators hands over: a network with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.spec import Preprocessing

ACCEPTED_NAMES = (
    "'efficientnet-lite0' (needs no download), 'timm:NAME', 'torchvision:NAME', a bare NAME (timm's, else "
    "torchvision's), 'package.module:factory', or a file (.pt2 of torch.export, .pt of TorchScript)"
)


@dataclass(frozen=True)
class Network:
    """A classifier as its source built it, on the CPU.

    ``preprocessing.input_size`` is the network's own size. ``class_ids`` are stable names of the classes. ``fixed``: a program
    rather than a module, to be run as it is. ``sha256`` is over a program's file; None: over the module's weights.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None
    class_ids: tuple[str, ...] | None = None
    fixed: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Listed:
    """A pretrained classifier that a source can build: its ``--model`` name, and what is known before it is built.

    ``classes_named``: whether names of the classes are known. ``weights``: ``packaged`` with something installed, ``cached``
    by an earlier download, or to ``download``.
    """

    name: str
    input_size: int
    num_classes: int
    classes_named: bool
    weights: str


def unknown_name(name: str, source: str, near: list[str]) -> AnnotatorError:
    """An error for a name that `source` does not have."""
    hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
    return AnnotatorError(f"unknown annotator {name!r}: no such model in {source}.{hint} Accepted: {ACCEPTED_NAMES}")


def refused(name: str, error: Exception, image_size: int | None, own_size: int, doing: str) -> AnnotatorError:
    """An error for a network that raises `error` when `doing` something: for the image size, if that is not its own."""
    if image_size is None or image_size == own_size:
        return AnnotatorError(f"{name} failed {doing}: {in_short(error)}")
    sizes = f"{image_size} px (its own size is {own_size} px)"
    return AnnotatorError(f"{name} does not take images of {sizes}: {in_short(error)}")


def in_short(error: BaseException) -> str:
    """The exception's type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:240]}" if text else type(error).__name__
