"""What there is to draw of one label map: the best class of each location, how sure it is, and the classes' shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.cli.colours import OTHER, Swatch, assign
from labelstore.labelmap import location_probabilities
from labelstore.schema import NO_CLASS, StoreInfo
from labelstore.survey import SURE

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MapView:
    """The best class of every location of one label map.

    Attributes
    ----------
    best
        int64 ``[H, W]``, row 0 at the top: the class with the highest stored score, `NO_CLASS` where none is stored.
    probability
        float64 ``[H, W]``, 0 to 1: the best class's softmax probability at its location.
    shares
        ``(class, share)``, largest share first, ties by lower class. A share is the fraction of the locations where the
        class is the best one; what is missing from 1 has no class. All of them have a colour; see `shown`.
    """

    best: NDArray[np.int64]
    probability: NDArray[np.float64]
    shares: tuple[tuple[int, float], ...]

    @classmethod
    def from_map(cls, classes: NDArray[np.uint16], scores: NDArray[np.float32], num_classes: int) -> MapView:
        """Read a label map.

        Parameters
        ----------
        classes
            uint16 ``[K, H, W]``; 65535 is 'no class'.
        scores
            float32 ``[K, H, W]``: logits, non-increasing along K. Classes that are not stored have logit 0.
        num_classes
            Number of classes of the annotator, the stored ones included.
        """
        all_probabilities = location_probabilities(classes, scores.astype(np.float64), num_classes)
        logits = np.where(classes != NO_CLASS, scores.astype(np.float64), -np.inf)
        rank = logits.argmax(axis=0)[None]
        best = np.take_along_axis(classes, rank, axis=0)[0].astype(np.int64)
        return cls(best, np.take_along_axis(all_probabilities, rank, axis=0)[0], _shares(best))

    @property
    def height(self) -> int:
        """Number of rows of locations."""
        return int(self.best.shape[0])

    @property
    def width(self) -> int:
        """Number of columns of locations."""
        return int(self.best.shape[1])

    @property
    def shown(self) -> tuple[tuple[int, float], ...]:
        """As `shares`, of the classes that the image shows: the locations count where the class is the best one surely
        (`labelstore.survey.SURE`), as in searches, filters and statistics."""
        return _shares(np.where(self.probability >= SURE, self.best, NO_CLASS))

    @property
    def opacity(self) -> NDArray[np.float64]:
        """float64 ``[H, W]``: how strongly a location's colour covers the photograph: the surer, the stronger."""
        return 0.3 + 0.45 * self.probability

    def swatches(self) -> dict[int, Swatch]:
        """Letters and colours of the classes with the largest shares; the rest is `OTHER`."""
        return assign([c for c, _ in self.shares])


def _shares(best: NDArray[np.int64]) -> tuple[tuple[int, float], ...]:
    found, counts = np.unique(best[best != NO_CLASS], return_counts=True)
    order = np.lexsort((found, -counts))
    return tuple((int(found[i]), float(counts[i] / best.size)) for i in order)


@dataclass(frozen=True)
class LegendRow:
    """One line of a map's legend; `share` is a fraction of the locations."""

    swatch: Swatch
    name: str
    share: float


def legend(view: MapView, class_names: Sequence[str] | None) -> list[LegendRow]:
    """List what the letters and colours stand for, largest share first, 'other' last; the shares sum to 1."""
    swatches = view.swatches()
    shown, rest = view.shares[: len(swatches)], view.shares[len(swatches) :]
    rows = [LegendRow(swatches[c], class_name(c, class_names), share) for c, share in shown]
    others = view.best.size - sum(round(share * view.best.size) for _, share in shown)
    if others:
        name = f"other ({len(rest)} class{'es' if len(rest) > 1 else ''})" if rest else "no class"
        rows.append(LegendRow(OTHER, name, others / view.best.size))
    return rows


def shown_legend(view: MapView, class_names: Sequence[str] | None) -> list[LegendRow]:
    """List the classes that an image shows, largest share first, then the share that is unsure; see `MapView.shown`."""
    swatches, shown = view.swatches(), view.shown
    rows = [LegendRow(swatches.get(number, OTHER), class_name(number, class_names), share) for number, share in shown]
    rest = view.best.size - sum(round(share * view.best.size) for _, share in shown)
    return [*rows, LegendRow(OTHER, "unsure", rest / view.best.size)] if rest else rows


def class_name(number: int, class_names: Sequence[str] | None) -> str:
    """Name a class in one printable line: its name where there is one, else ``class 281``."""
    name = class_names[number] if class_names is not None and number < len(class_names) else ""
    # Names come from a file that someone else may have written: no line breaks, no terminal control sequences.
    name = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(name.split()) or f"class {number}"


def top_classes(soft: NDArray[np.float32], top: int) -> list[tuple[int, float]]:
    """List the `top` classes of a soft label ``[C]`` with their probabilities, highest first, ties by lower class."""
    order = np.argsort(-soft, kind="stable")[: max(top, 0)]
    return [(int(c), float(soft[c])) for c in order]


def label_as_json(soft: NDArray[np.float32], top: int, info: StoreInfo) -> list[dict[str, Any]]:
    """Return the `top` classes of a soft label ``[C]`` as JSON has them: number, name, stable id, probability."""
    return [
        {
            "class": number,
            "name": class_name(number, info.class_names),
            **({"id": info.class_ids[number]} if info.class_ids else {}),
            "probability": round(share, 6),
        }
        for number, share in top_classes(soft, top)
    ]


def percent(fraction: float) -> str:
    """Write a fraction as a percentage with one decimal; what would round to nothing shows as ``<0.1 %``."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"


def inside(view: MapView, box: Box) -> NDArray[np.bool_]:
    """Mark the locations ``[H, W]`` whose centres lie within a box.

    Along an axis where the box holds no centre, the location that the box's middle falls into counts: a box always
    marks something.
    """
    x1, y1, x2, y2 = box
    rows, columns = _within(y1, y2, view.height), _within(x1, x2, view.width)
    return rows[:, None] & columns[None, :]


def _within(one: float, other: float, count: int) -> NDArray[np.bool_]:
    low, high = sorted((one, other))
    marked: NDArray[np.bool_] = np.abs((np.arange(count) + 0.5) / count - (low + high) / 2) <= (high - low) / 2
    if not marked.any():
        marked[min(max(int((low + high) / 2 * count), 0), count - 1)] = True
    return marked
