"""What names an annotator, and what is known of it: plain data that crosses process borders. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field

from labelstore.records import ScoresRecord

SCORES = ("logits", "probabilities")
"""What a user may say of scores."""
PRECISIONS = ("float32", "bfloat16")
PROGRAM_SUFFIXES = (".pt2", ".pt", ".ts", ".torchscript", ".jit")
"""What files end in that hold an annotator as a program: the first of `torch.export`, the others of TorchScript."""


@dataclass(frozen=True)
class Preprocessing:
    """How an annotator wants its images: the whole image resized to a square, then ``(x / 255 - mean) / std`` in RGB."""

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str  # Pillow's name in lower case: "nearest", "bilinear", "bicubic", "lanczos"


@dataclass(frozen=True)
class AnnotatorSpec:
    """Which annotator to load.

    Parameters
    ----------
    model
        ``efficientnet-lite0`` (needs no download), ``timm:NAME``, ``torchvision:NAME``, a bare name (timm's, else
        torchvision's), ``package.module:factory``, or a file that `torch.export` or TorchScript has saved.
    image_size
        Side of the square input in pixels; None: the annotator's own.
    random_weights
        Build the network with seeded random weights and download nothing (tests, dry runs).
    weights
        A file of weights instead of the pretrained ones.
    mean, std, interpolation
        Instead of the annotator's own.
    sha256
        What a program's file must have; it is not loaded otherwise.
    scores
        What a user says of its output: ``logits`` or ``probabilities``; None: find out, and refuse what is not clear.
    recorded
        What a store has found of it, which is then not looked at again.
    """

    model: str
    image_size: int | None = None
    random_weights: bool = False
    weights: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    sha256: str | None = None
    scores: str | None = None
    recorded: ScoresRecord | None = None


@dataclass(frozen=True)
class EnsembleSpec:
    """The annotators of a store, one or several whose logits are averaged on the first one's grid.

    Parameters
    ----------
    members
        At least one.
    flip
        Whether logits are averaged with those of the mirrored image, mirrored back.
    precision
        ``float32``; ``bfloat16``: mixed precision, the head and all after it in float32; None: the better one for the device.
    compiled
        Whether `torch.compile` is used.
    """

    members: tuple[AnnotatorSpec, ...]
    flip: bool = False
    precision: str | None = None
    compiled: bool = False


@dataclass(frozen=True)
class AnnotatorInfo:
    """What a store records of its annotator, and what a run needs to know before the first image.

    ``class_ids`` are stable names of the classes (wnids for ImageNet), where known. ``scores`` says what its output is, and
    what is done with it; ``unclear``: it may be probabilities, which images must tell. ``notes`` are for the user.
    """

    name: str
    weights_sha256: str
    preprocessing: Preprocessing
    own_input_size: int
    num_classes: int
    map_size: tuple[int, int]
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    class_ids: tuple[str, ...] | None = field(default=None, repr=False)
    scores: ScoresRecord = field(default_factory=ScoresRecord)
    unclear: bool = False
    notes: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class EnsembleInfo:
    """What is known of the annotators of a store together: the first one's, but ``weights_sha256`` is over all of them.

    ``members`` are each one's; ``precision`` is what they run in.
    """

    combined: AnnotatorInfo
    members: tuple[AnnotatorInfo, ...]
    precision: str
