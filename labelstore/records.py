"""What a store records beside its sizes: annotator, shape of spectral maps, distances, rows that were added. Pure data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelstore.attributes import Attributes
from labelstore.credentials import without_credentials

MAX_CLASSES = 65535


def strip_fields(record: object, *names: str) -> None:
    """Take credentials out of a record's fields as it is made: they are neither written nor shown."""
    for name in names:
        value = getattr(record, name)
        if value is not None and "://" in value:
            object.__setattr__(record, name, without_credentials(value))


AXES = ("yx", "xy")
SCORE_UNITS = ("logits", "softmax", "sigmoid", "log_softmax")
_MAX_PATTERN_VALUES = 1 << 20
_MAX_EXTENTS = 1 << 16


@dataclass(frozen=True)
class ScoresRecord:
    """What unit the scores were in of which a store's logits were made.

    Parameters
    ----------
    unit
        ``logits``: kept as they came; ``softmax``: probabilities that sum to 1, whose logarithm was taken; ``sigmoid``:
        probabilities of each class by itself, ``log(p / (1 - p))``; ``log_softmax``: logarithms of the K best probabilities.
    removed
        Whether the annotator's last operation, that softmax or sigmoid, was taken off instead, so that its input was kept.
    floor
        The least probability of which a logarithm was taken.
    """

    unit: str = "logits"
    removed: bool = False
    floor: float | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """What a user may say and have it so: ``logits`` or ``probabilities``; of log-probabilities both."""
        if self.unit == "log_softmax":
            return ("logits", "probabilities")
        return ("logits",) if self.unit == "logits" else ("probabilities",)


@dataclass(frozen=True)
class MemberRecord:
    """A further model of an ensemble; ``requested``, ``weights``, ``file_sha256`` and ``scores`` as an `AnnotatorRecord`'s."""

    name: str
    input_size: int
    weights: str | None = None
    requested: str | None = None
    file_sha256: str | None = None
    scores: ScoresRecord | None = None

    def __post_init__(self) -> None:
        strip_fields(self, "name", "weights", "requested")


@dataclass(frozen=True)
class AnnotatorRecord:
    """What a store remembers of the model that made it.

    ``name`` is its full name, ``requested`` what the user called it, ``weights`` their file (None: the model's
    own); ``others`` are further models, whose logits were averaged with its own, and ``weights_sha256`` is over all of them.
    ``file_sha256`` is of the file that holds the model as a program; None: it is no such file, or the store is older.
    ``flip``: averaged with the mirrored image's. Of maps that another program made: ``input_size`` 0, no ``mean`` and ``std``,
    and empty texts for what is not known. ``scores``: None where nothing is recorded, and scores were kept as they came.
    """

    name: str
    weights_sha256: str
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    requested: str | None = None
    weights: str | None = None
    others: tuple[MemberRecord, ...] = ()
    flip: bool = False
    precision: str = "float32"
    file_sha256: str | None = None
    scores: ScoresRecord | None = None

    def __post_init__(self) -> None:
        strip_fields(self, "name", "weights", "requested")

    @property
    def full_name(self) -> str:
        """The names of all its models."""
        return " + ".join([self.name, *(other.name for other in self.others)])


@dataclass(frozen=True)
class LabelDistance:
    """How far a store's soft labels are from others, such as the annotator's own: means over crops of a few images.

    ``l1`` is 0 to 2; ``kl`` in nats; ``agreement`` how often the best class is the same; ``best`` the probability of the best
    class in the labels that it was measured from (None: not recorded).
    """

    l1: float
    kl: float
    agreement: float
    images: int
    best: float | None = None

    def flat(self, num_classes: int) -> bool:
        """Whether those labels are no surer than probabilities taken for logits can make them: ``e / (C - 1 + e)``."""
        return self.best is not None and self.best <= math.e / (num_classes - 1 + math.e)


@dataclass(frozen=True)
class ImportRecord:
    """Where maps come from that were not made by annotating images.

    ``kind`` says what was read (``relabel``, ``tokenlabeling``, ``arrays``, ``webdataset``, ``store``, or what a program's
    author calls it), ``location`` where it was, ``axes`` how the last two axes of its maps lay there: ``yx``, or ``xy`` and
    turned round; ``distance`` how far soft labels are from those of the maps that were read, where they were encoded anew;
    ``scores`` their unit (None: kept as they came).
    """

    kind: str
    location: str
    axes: str = "yx"
    distance: LabelDistance | None = None
    scores: ScoresRecord | None = None

    def __post_init__(self) -> None:
        strip_fields(self, "location")


@dataclass(frozen=True)
class SpectralShape:
    """What a spectral map is made of (encoding ``spectral``).

    Parameters
    ----------
    classes
        M, the classes an image names.
    shaped
        P, how many of them, the first, vary over the image; the others have one logit for all of it.
    patterns
        R, the patterns that shaped classes are mixed of.
    frequencies
        ``(kh, kw)``, the cosines of a pattern down and across the map.
    tail_bits
        0, 1 or 2: bits for every class that is not named, which say which of so many logits it has.
    """

    classes: int
    shaped: int
    patterns: int
    frequencies: tuple[int, int]
    tail_bits: int = 0


@dataclass(frozen=True)
class Extent:
    """Consecutive rows that were added together, from the start of a shard on: row ``start`` up to, not including, ``stop``.

    ``images_root`` is where their images lay.
    """

    start: int
    stop: int
    images_root: str | None = None

    def __post_init__(self) -> None:
        strip_fields(self, "images_root")


def parse_extents(take: Attributes) -> tuple[Extent, ...]:
    """Take the extents out of a store's attributes."""
    listed = take.values.get("extents") or ()
    if not isinstance(listed, list | tuple) or len(listed) > _MAX_EXTENTS:
        raise take.wrong("extents", f"a list of at most {_MAX_EXTENTS:,}", repr(listed))
    entries = (Attributes(entry, take.where, f"{take.path}extents.") for entry in listed)
    return tuple(
        Extent(entry.whole("start", 0, 2**48), entry.whole("stop", 0, 2**48), entry.text("images_root", optional=True))
        for entry in entries
    )


def parse_annotator(take: Attributes) -> AnnotatorRecord:
    """Take the annotator out of its object."""
    others = take.values.get("others") or ()
    if not isinstance(others, list | tuple):
        raise take.wrong("others", "a list of models", repr(others))
    return AnnotatorRecord(
        name=take.text("name"),
        weights_sha256=take.text("weights_sha256"),
        input_size=take.whole("input_size", 0, 2**20),
        mean=take.numbers("mean"),
        std=take.numbers("std"),
        interpolation=take.text("interpolation"),
        requested=take.text("requested", optional=True),
        weights=take.text("weights", optional=True),
        others=tuple(_member(Attributes(other, take.where, f"{take.path}others.")) for other in others),
        flip=take.flag("flip"),
        precision=_precision(take),
        file_sha256=take.text("file_sha256", optional=True),
        scores=parse_scores(take),
    )


def _precision(take: Attributes) -> str:
    given = take.text("precision", optional=True)
    return "float32" if given is None else given


def parse_imported(take: Attributes) -> ImportRecord | None:
    """Take where imported maps come from out of a store's attributes; None where they were annotated."""
    if take.values.get("imported") is None:
        return None
    found = take.nested("imported")
    axes = found.one_of("axes", AXES)
    return ImportRecord(found.text("kind"), found.text("location"), axes, parse_distance(found), parse_scores(found))


def parse_scores(take: Attributes) -> ScoresRecord | None:
    """Take the unit that scores came in out of an object's attributes, if it is recorded."""
    if take.values.get("scores") is None:
        return None
    found = take.nested("scores")
    floor = None if found.values.get("floor") is None else found.number("floor")
    if floor is not None and not 0 < floor < 1:
        raise found.wrong("floor", "a number between 0 and 1", floor)
    return ScoresRecord(found.one_of("unit", SCORE_UNITS), found.flag("removed"), floor)


def _member(take: Attributes) -> MemberRecord:
    weights, requested, file_sha256 = (take.text(key, optional=True) for key in ("weights", "requested", "file_sha256"))
    size, scores = take.whole("input_size", 1, 2**20), parse_scores(take)
    return MemberRecord(take.text("name"), size, weights, requested, file_sha256, scores)


def parse_spectral(take: Attributes, map_size: tuple[int, int]) -> SpectralShape:
    """Take the sizes of spectral maps out of their object; ``map_size`` bounds them."""
    classes, frequencies = take.whole("classes", 1, MAX_CLASSES), take.size("frequencies")
    if frequencies[0] > map_size[0] or frequencies[1] > map_size[1]:
        raise take.wrong("frequencies", f"at most the map's {list(map_size)}", list(frequencies))
    shape = SpectralShape(
        classes=classes,
        shaped=take.whole("shaped", 0, classes),
        patterns=take.whole("patterns", 0, frequencies[0] * frequencies[1] - 1),
        frequencies=frequencies,
        tail_bits=take.whole("tail_bits", 0, 2),
    )
    values = max(shape.patterns, 1) * frequencies[0] * frequencies[1] + shape.shaped * shape.patterns
    if values > _MAX_PATTERN_VALUES:
        raise take.wrong("patterns", f"patterns and weights of at most {_MAX_PATTERN_VALUES:,} numbers", values)
    return shape


def parse_distance(take: Attributes) -> LabelDistance | None:
    """Take the distance out of a store's attributes, if it was measured."""
    if take.values.get("distance") is None:
        return None
    found = take.nested("distance")
    l1, kl, agreement = (found.number(key) for key in ("l1", "kl", "agreement"))
    best = None if found.values.get("best") is None else found.number("best")
    return LabelDistance(l1, kl, agreement, found.whole("images", 1, 2**48), best)
