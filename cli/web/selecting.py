"""Which images a search and filters leave, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.cli.web.site import Site
from labelstore.id_search import rows_containing
from labelstore.schema import Status

ORDERS = ("row", "doubt", "entropy", "classes")
STATUSES = {"done": Status.DONE, "failed": Status.FAILED, "pending": Status.PENDING}
_SHARE = 0.02
"""Of the locations: where a class of that name is the best one, a search for the name finds the image."""


@dataclass(frozen=True)
class Selection:
    """What a user looks for; all of it must hold.

    Parameters
    ----------
    text
        A part of the image id, or of the name of a class that is in the map.
    chosen, share
        A class that is the best one in at least such a share of the locations.
    status
        ``done``, ``failed`` or ``pending``; '' for any.
    disagrees
        The best class of the whole image is not that of the image's single label.
    several, at_least
        So many classes with at least the share ``several`` of the locations each.
    entropy
        The least entropy of the whole image's soft label, in nats.
    order
        ``row``; or first those whose single label is least likely (``doubt``), with the highest ``entropy``, or with most
        ``classes``.
    """

    text: str = ""
    chosen: int | None = None
    share: float = 0.0
    status: str = ""
    disagrees: bool = False
    several: float | None = None
    at_least: int = 2
    entropy: float | None = None
    order: str = "row"

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out and the order is the store's."""
        return self == Selection()


def select(site: Site, wanted: Selection) -> NDArray[np.int32]:
    """Return the rows that a selection leaves, in its order, out of what the survey knows by now. Kept for the next page."""
    key = wanted, site.surveyor.version, int(site.statuses_changed())
    return site.selections.get(key, lambda: _ordered(site, wanted, np.flatnonzero(_matching(site, wanted))))


def _matching(site: Site, wanted: Selection) -> NDArray[np.bool_]:
    survey = site.surveyor.survey
    found = np.zeros(len(survey), np.bool_)
    found[site.all_rows()] = True
    if wanted.text:
        found &= _named(site, wanted.text)
    if wanted.chosen is not None:
        found &= survey.has_class(wanted.chosen, wanted.share)
    if wanted.status:
        found &= site.statuses()[: len(survey)] == STATUSES[wanted.status]
    if wanted.disagrees:
        found &= site.disagrees()
    if wanted.several is not None:
        found &= survey.class_count(wanted.several) >= wanted.at_least
    if wanted.entropy is not None:
        found &= survey.known & (survey.entropy >= wanted.entropy)
    return found


def _named(site: Site, text: str) -> NDArray[np.bool_]:
    survey = site.surveyor.survey
    rows = rows_containing(site.reader.ids, text)
    found = np.zeros(len(survey), np.bool_)
    found[rows[rows < len(survey)]] = True
    classes = classes_named(site, text)
    if classes:
        found |= survey.has_any(classes, _SHARE)
    return found


def classes_named(site: Site, text: str) -> list[int]:
    """Return the classes whose name or stable id contains a text."""
    part = text.casefold()
    return [number for number, name in enumerate(site.searched_names) if part in name]


def _ordered(site: Site, wanted: Selection, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    survey = site.surveyor.survey
    if wanted.order == "doubt":
        rows = rows[np.argsort(np.nan_to_num(survey.own_probability[rows].astype(np.float32), nan=2.0), kind="stable")]
    elif wanted.order == "entropy":
        rows = rows[np.argsort(-survey.entropy[rows].astype(np.float32), kind="stable")]
    elif wanted.order == "classes":
        rows = rows[np.argsort(-survey.class_count(_SHARE)[rows], kind="stable")]
    return rows.astype(np.int32)
