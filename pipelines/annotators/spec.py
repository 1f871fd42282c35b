"""What names an annotator, and what is known of it: plain data that crosses process borders. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AnnotatorSpec:
    """Which annotator to load.

    Parameters
    ----------
    model
        ``efficientnet-lite0`` (needs no download), ``timm:NAME``, ``torchvision:NAME``, a bare name (timm's, else
        torchvision's), or ``package.module:factory``.
    image_size
        Side of the square input in pixels; None: the annotator's own.
    random_weights
        Build the network with seeded random weights and download nothing (tests, dry runs).
    """

    model: str
    image_size: int | None = None
    random_weights: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """How an annotator wants its images: the whole image resized to a square, then ``(x / 255 - mean) / std`` in RGB."""

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str  # Pillow's name in lower case: "nearest", "bilinear", "bicubic", "lanczos"


@dataclass(frozen=True)
class AnnotatorInfo:
    """What a store records of its annotator, and what a run needs to know before the first image.

    ``class_ids`` are stable names of the classes (wnids for ImageNet), where known.
    """

    name: str
    weights_sha256: str
    preprocessing: Preprocessing
    own_input_size: int
    num_classes: int
    map_size: tuple[int, int]
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    class_ids: tuple[str, ...] | None = field(default=None, repr=False)
