"""What a survey of a store says of the data set: classes, agreement, confusions, classes that go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelstore.schema import NO_CLASS
from labelstore.survey import Survey, least_share

SHOWN = 0.1
"""A class is in an image when it is the best one, and surely (`labelstore.survey.SURE`), in such a share of the locations."""


@dataclass(frozen=True)
class Overview:
    """A data set in numbers.

    Attributes
    ----------
    images
        Images looked at; ``labelled`` of them have a single label that is a class of the store, and ``agree`` of these have it
        as the best class of the whole image; ``left_out`` have one that is none, or by its name alone: see
        `labelstore.survey.Survey.misnamed`.
    several
        Images with two or more classes, each in at least `SHOWN` of the locations.
    entropy
        float64 ``[bins + 1]`` and int64 ``[bins]``: edges, and images in between.
    """

    images: int
    labelled: int
    left_out: int
    agree: int
    several: int
    entropy: tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True)
class ClassFacts:
    """One class: the images whose best class it is, that show it, whose single label it is, and of these those that agree."""

    number: int
    best: int
    shown: int
    labelled: int
    agree: int


def overview(survey: Survey, bins: int = 24) -> Overview:
    """Sum a survey up."""
    known = survey.known
    counts, edges = np.histogram(
        survey.entropy[known].astype(np.float64), bins, (0.0, float(np.log(max(survey.num_classes, 2))))
    )
    several = np.count_nonzero(survey.class_count(SHOWN)[known] >= 2)
    labelled, disagree = np.count_nonzero(survey.labelled), np.count_nonzero(survey.disagrees)
    left_out = np.count_nonzero(survey.left_out)
    return Overview(int(known.sum()), int(labelled), int(left_out), int(labelled - disagree), int(several), (edges, counts))


def images_by_class(survey: Survey, share: float = 0.0) -> NDArray[np.int64]:
    """Return how many images show each class, int64 ``[C]``; all where it is the best one anywhere, or in such a share."""
    shown = survey.present[survey.shares >= least_share(share)]
    return np.bincount(shown, minlength=survey.num_classes)[: survey.num_classes]


def class_facts(survey: Survey) -> list[ClassFacts]:
    """Return all classes that any image shows or has as its label, the most frequent first."""
    count, labelled = survey.num_classes, survey.labelled
    columns = [
        np.bincount(survey.best[survey.known], minlength=count),
        images_by_class(survey, SHOWN),
        np.bincount(survey.own[labelled], minlength=count),
        np.bincount(survey.own[labelled & ~survey.disagrees], minlength=count),
    ]
    table = np.stack(columns, axis=1)
    there = np.flatnonzero(table.any(axis=1))
    order = there[np.lexsort((there, -table[there, 1], -table[there, 0]))]
    return [ClassFacts(number, *table[number].tolist()) for number in order.tolist()]


def confusions(survey: Survey, most: int = 50) -> list[tuple[int, int, int]]:
    """Return (class of the single label, best class of the map, images) where they differ, the most frequent first."""
    wrong = survey.disagrees
    pairs = survey.own[wrong].astype(np.int64) << 16 | survey.best[wrong]
    return _most_frequent(pairs, most)


def together(survey: Survey, share: float = SHOWN, most: int = 50) -> list[tuple[int, int, int]]:
    """Return (class, class, images that show both), each in at least such a share of the locations, the most frequent first."""
    there = (survey.shares >= least_share(share)) & (survey.present != NO_CLASS)
    pairs = []
    for one in range(survey.present.shape[1]):
        for other in range(one + 1, survey.present.shape[1]):
            both = there[:, one] & there[:, other]
            classes = np.sort(survey.present[both][:, [one, other]].astype(np.int64), axis=1)
            pairs.append(classes[:, 0] << 16 | classes[:, 1])
    return _most_frequent(np.concatenate(pairs), most)


def _most_frequent(pairs: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    found, counts = np.unique(pairs, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(found[at]) >> 16, int(found[at]) & 0xFFFF, int(counts[at])) for at in order]
