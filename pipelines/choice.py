"""How maps are to be kept, chosen by the user or by default, held against what the annotator gives."""

from __future__ import annotations

from dataclasses import dataclass

from labelstore.errors import OptionError
from labelstore.pipelines import defaults
from labelstore.records import SpectralShape


@dataclass(frozen=True)
class EncodingChoice:
    """What a user may choose of an encoding. None: the default."""

    encoding: str | None = None
    classes_per_image: int | None = None
    patterns: int | None = None
    frequencies: int | None = None
    tail_bits: int | None = None
    baseline: str | None = None

    @property
    def name(self) -> str:
        """The encoding."""
        return self.encoding or defaults.ENCODING


def check_choice(choice: EncodingChoice) -> None:
    """Refuse choices that do not go together.

    Raises
    ------
    OptionError
    """
    spectral = {
        "--classes-per-image": choice.classes_per_image,
        "--patterns": choice.patterns,
        "--frequencies": choice.frequencies,
        "--tail-bits": choice.tail_bits,
    }
    given = [option for option, value in spectral.items() if value is not None]
    if choice.name != "spectral" and given:
        raise OptionError(f"{', '.join(given)}: goes with --encoding spectral, not with {choice.name}")
    if choice.name != "spectral" and choice.baseline == "absent_mass":
        raise OptionError(f"--baseline absent_mass: goes with --encoding spectral; for {choice.name}: absent_mean or zero")


def baseline(choice: EncodingChoice) -> str:
    """Return what absent classes are to count as."""
    return choice.baseline or defaults.BASELINES[choice.name]


def spectral_shape(choice: EncodingChoice, num_classes: int, map_size: tuple[int, int]) -> SpectralShape | None:
    """Return what spectral maps of an annotator are made of; None for another encoding.

    Defaults are cut to what there is: classes, and the map's size.

    Raises
    ------
    OptionError
        More was asked for than there is.
    """
    if choice.name != "spectral":
        return None
    height, width = map_size
    classes = _at_most("--classes-per-image", choice.classes_per_image, defaults.CLASSES_PER_IMAGE, num_classes, "the classes")
    _at_most("--frequencies", choice.frequencies, 1, min(height, width), f"the {height}x{width} map")
    frequencies = choice.frequencies or defaults.FREQUENCIES
    down, across = min(frequencies, height), min(frequencies, width)
    varying = down * across - 1
    patterns = _at_most("--patterns", choice.patterns, defaults.PATTERNS, varying, f"{down}x{across} frequencies but the mean")
    usual = defaults.TAIL_BITS if num_classes <= defaults.MOST_TAIL_CLASSES else 0
    bits = usual if choice.tail_bits is None else choice.tail_bits
    return SpectralShape(classes, -(-classes // 2) if patterns else 0, patterns, (down, across), bits)


def _at_most(option: str, chosen: int | None, default: int, most: int, what: str) -> int:
    if chosen is not None and chosen > most:
        raise OptionError(f"{option} {chosen}: expected at most {most}: {what} of the annotator")
    return min(default, most) if chosen is None else chosen
