"""Maps on their way into a shard, the bad ones among them told apart: named in an error, or marked as failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelstore.errors import MapsError
from labelstore.pipelines.encoders import encode, is_usable
from labelstore.pipelines.encoders.listed import encode_listed, find_problems
from labelstore.pipelines.scores import listed_logits_of
from labelstore.pipelines.shard_rows import ShardRows
from labelstore.records import ScoresRecord

NOT_FINITE = "logits: expected finite numbers"


@dataclass(frozen=True)
class Found:
    """What was found where a map should be: ``classes`` and ``scores`` ``[K, H, W]``, or what is wrong."""

    where: str
    classes: NDArray[Any] | None = None
    scores: NDArray[Any] | None = None
    problem: str = ""


def as_logits(found: Found, scores: ScoresRecord | None, num_classes: int) -> Found:
    """Return a map with logits in the place of scores of another unit."""
    if found.problem or found.classes is None or found.scores is None:
        return found
    logits, problem = listed_logits_of(found.scores, found.classes, scores, num_classes)
    return replace(found, scores=logits, problem=problem)


def put_found(
    rows: ShardRows, start: int, found: Sequence[Found], skip_bad: bool, image_crc32: Sequence[int] | None = None
) -> None:
    """Put maps that list their classes into a shard, from a row on.

    Parameters
    ----------
    skip_bad
        Whether those that cannot be kept fail, with the reason; else they are an error.

    Raises
    ------
    MapsError
        Says where the first bad one is, and what is wrong.
    """
    problems = [each.problem for each in found]
    able = [at for at, each in enumerate(found) if not each.problem]
    if able:
        classes, scores = _stacked([found[at].classes for at in able]), _stacked([found[at].scores for at in able])
        seen = find_problems(classes, scores, rows.info.num_classes)
        for at, problem in zip(able, seen, strict=True):
            problems[at] = problem
        good = np.array([not problem for problem in seen])
        arrays = encode_listed(classes[good], scores[good], rows.info) if good.any() else {}
    _put(rows, start, arrays if able else {}, problems, [each.where for each in found], skip_bad, image_crc32)


def put_dense(
    rows: ShardRows,
    start: int,
    logits: NDArray[np.float32],
    where: Sequence[str],
    skip_bad: bool,
    image_crc32: Sequence[int] | None = None,
    seen: Sequence[str] | None = None,
) -> None:
    """Put dense logits ``[n, C, H, W]`` into a shard, from a row on; else as `put_found`. ``where`` names each in messages,
    ``seen`` is what is known to be wrong with each."""
    dense = torch.from_numpy(logits)
    before = seen or [""] * len(logits)
    usable = is_usable(dense) & torch.tensor([not problem for problem in before])
    problems = [problem or ("" if good else NOT_FINITE) for problem, good in zip(before, usable.tolist(), strict=True)]
    _put(rows, start, encode(dense[usable], rows.info) if usable.any() else {}, problems, where, skip_bad, image_crc32)


def _put(
    rows: ShardRows,
    start: int,
    arrays: dict[str, NDArray[Any]],
    problems: list[str],
    where: Sequence[str],
    skip_bad: bool,
    image_crc32: Sequence[int] | None,
) -> None:
    """Put the rows without a problem, whose arrays these are, and fail the others."""
    bad = next((at for at, problem in enumerate(problems) if problem), None)
    if bad is not None and not skip_bad:
        raise MapsError(f"{where[bad]}: {problems[bad]}. With --skip-bad its row is marked as failed instead")
    if bad is None:
        rows.put(start, arrays, problems, image_crc32)
        return
    rows.put(start, among_failed(arrays, problems), problems, image_crc32)


def among_failed(arrays: Mapping[str, NDArray[Any]], problems: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of good rows as `ShardRows.put` takes them: with rows of zeros where there is a problem."""
    good = np.array([not problem for problem in problems])
    whole = {name: np.zeros((len(problems), *values.shape[1:]), values.dtype) for name, values in arrays.items()}
    for name, values in arrays.items():
        whole[name][good] = values
    return whole


def _stacked(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    return np.stack([part for part in parts if part is not None])
