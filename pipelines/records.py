"""What a store records of its annotators, and the way back from the record to them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from labelstore.errors import AnnotatorError, FormatError
from labelstore.pipelines.annotators.spec import (
    PRECISIONS,
    PROGRAM_SUFFIXES,
    AnnotatorInfo,
    AnnotatorSpec,
    EnsembleInfo,
    EnsembleSpec,
)
from labelstore.pipelines.annotators.trust import runs_code
from labelstore.records import AnnotatorRecord, MemberRecord, ScoresRecord
from labelstore.schema import StoreInfo


def annotator_record(requested: tuple[str, ...], spec: EnsembleSpec, found: EnsembleInfo) -> AnnotatorRecord:
    """Return what a new store says of its annotators; ``requested`` is what the user calls them."""
    first, how = found.members[0], found.members[0].preprocessing
    others = zip(spec.members[1:], found.members[1:], requested[1:], strict=True)
    return AnnotatorRecord(
        name=first.name,
        weights_sha256=found.combined.weights_sha256,
        input_size=how.input_size,
        mean=how.mean,
        std=how.std,
        interpolation=how.interpolation,
        requested=requested[0],
        weights=spec.members[0].weights,
        others=tuple(
            MemberRecord(info.name, info.preprocessing.input_size, member.weights, asked, file_sha256(info), info.scores)
            for member, info, asked in others
        ),
        flip=spec.flip,
        precision=found.precision,
        file_sha256=file_sha256(first),
        scores=first.scores,
    )


def file_sha256(info: AnnotatorInfo) -> str | None:
    """Return the digest of an annotator's file; None where it is no program in a file."""
    return info.weights_sha256 if Path(info.name).suffix in PROGRAM_SUFFIXES else None


def recorded_annotators(location: str, info: StoreInfo, named: Sequence[str], compiled: bool = False) -> EnsembleSpec:
    """Return the annotators that a store was begun with, for loading.

    Parameters
    ----------
    named
        Models that the user has named: of those that run code, no others are returned.

    Raises
    ------
    AnnotatorError
        The store alone names one that runs code.
    FormatError
        The store says that they ran in a precision that is none.
    """
    record = info.annotator
    _require_named(location, record, named)
    if record.precision not in PRECISIONS:
        raise FormatError(
            f"{location}: annotator: precision: expected {' or '.join(PRECISIONS)}, found {record.precision[:80]!r}"
        )
    first = AnnotatorSpec(
        record.name,
        record.input_size,
        weights=record.weights,
        mean=_triple(record.mean),
        std=_triple(record.std),
        interpolation=record.interpolation,
        sha256=_recorded_sha256(record),
        recorded=_scores(record),
    )
    others = (
        AnnotatorSpec(other.name, other.input_size, weights=other.weights, sha256=other.file_sha256, recorded=_scores(other))
        for other in record.others
    )
    return EnsembleSpec((first, *others), record.flip, record.precision, compiled)


def _require_named(location: str, record: AnnotatorRecord, named: Sequence[str]) -> None:
    """Refuse to load what runs code because a store, which may be a stranger's, names it."""
    known = set(map(from_the_root, named))
    unnamed = [has.name for has in _models(record) if runs_code(has.name) and has.name not in known]
    if unnamed:
        models = " ".join(f"--model {shlex.quote(has.name)}" for has in _models(record))
        raise AnnotatorError(
            f"{location}: its annotator {', '.join(unnamed)} runs code when it is loaded, and only the store names it; nothing "
            f"was loaded. If you trust it, name it yourself: {models}"
        )


def _recorded_sha256(record: AnnotatorRecord) -> str | None:
    """The digest that the first model's file must have."""
    alone = not record.others and Path(record.name).suffix in PROGRAM_SUFFIXES  # older stores: one digest for all
    return record.file_sha256 or (record.weights_sha256 if alone else None)


def asked_and_recorded(models: tuple[str, ...] | None, record: AnnotatorRecord) -> tuple[str | None, str]:
    """What the user asks for and what there is; timm:resnet18.a1_in1k may have been asked for as resnet18."""
    if not models:
        return None, record.full_name
    known = _models(record)
    same = len(models) == len(known) and all(
        asked in (has.requested, has.name) or from_the_root(asked) == has.name for asked, has in zip(models, known, strict=True)
    )
    given = " + ".join(models)
    return given, given if same else record.full_name


def weight_files(record: AnnotatorRecord) -> tuple[str, ...] | None:
    """Return the files of weights that a store was begun with; None: the models' own."""
    return tuple(has.weights for has in _models(record) if has.weights is not None) or None


def asked_and_recorded_scores(asked: str | None, record: AnnotatorRecord) -> tuple[str | None, str]:
    """What the user says of scores, and what a store was begun with."""
    found = [_scores(model).options for model in _models(record)]
    if asked is not None and all(asked in options for options in found):
        return asked, asked
    return asked, "logits" if all("logits" in options for options in found) else "probabilities"


def _scores(record: AnnotatorRecord | MemberRecord) -> ScoresRecord:
    return record.scores or ScoresRecord()


def _models(record: AnnotatorRecord) -> tuple[AnnotatorRecord | MemberRecord, ...]:
    return (record, *record.others)


def absolute(file: str) -> str:
    """A file's whole path: the run may go on from another folder."""
    return str(Path(file).absolute())


def from_the_root(model: str) -> str:
    """A model's name, with the whole path if it is a file with a program."""
    return absolute(model) if Path(model).suffix in PROGRAM_SUFFIXES else model


def _triple(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None
