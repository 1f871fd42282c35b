"""Tar files of images, as WebDataset writes them: an index of each is made once, then members are read where they lie."""

from __future__ import annotations

import mimetypes
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError
from labelstore.image_formats import is_image_name
from labelstore.pipelines.sources import tar_index
from labelstore.pipelines.sources.bytesio import open_file
from labelstore.pipelines.sources.listing import (
    NOT_UTF8,
    Listing,
    Reordered,
    check_ids,
    escaped_id,
    is_text,
    sorted_by_id,
    stated_targets,
)
from labelstore.pipelines.sources.passing_over import extension_of, is_hidden, others_note, seen_names
from labelstore.pipelines.sources.places import ExcludedPlace, PartPlace, Place
from labelstore.pipelines.sources.tar_index import TarIndex
from labelstore.pipelines.sources.tar_labels import ENDING, MOST_BYTES, TarLabels

_AT_ONCE = 8


@dataclass(frozen=True)
class _Members:
    files: Sequence[str]
    indices: Sequence[TarIndex]
    firsts: NDArray[np.int64]

    def __getitem__(self, row: int) -> Place:
        file = int(np.searchsorted(self.firsts, row, side="right")) - 1
        index, at = self.indices[file], row - int(self.firsts[file])
        if not is_text(index.names[at]):
            return ExcludedPlace(NOT_UTF8)
        return PartPlace(self.files[file], index.names[at], int(index.starts[at]), int(index.lengths[at]))


def list_tars(files: Sequence[str], where: str, hidden: bool = False) -> Listing:
    """List the images in tar files, in byte order of their names. Labels: ``.cls`` members, else folders.

    A member whose name is not UTF-8 has an id with the bytes escaped, and its row fails.

    Raises
    ------
    ImagesError
        A file is missing, no tar file, or cut short; there are no images; two have one name; or one has several labels.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        indices = list(threads.map(_index_of, files))
    others = sum((Counter(dict(index.others)) for index in indices), Counter[str]())
    indices, hidden_notes = _seen(indices, hidden)
    passed_over = (*hidden_notes, *others_note(others))
    ids = [escaped_id(name) for index in indices for name in index.names]
    if not ids:
        said = "".join(f". {note}" for note in passed_over)
        raise ImagesError(f"{where}: no images in these {len(files)} tar files{said}")
    firsts = np.cumsum([0, *(len(index.names) for index in indices)])[:-1]
    members = _Members(files, indices, firsts)
    check_ids(ids, members, where)
    order = sorted_by_id(ids)
    ordered = tuple(ids[row] for row in order.tolist())
    labels = [label for index in indices for label in index.labels]
    given = [labels[row] for row in order.tolist()] if any(labels) else None
    (targets, names), notes = stated_targets(ordered, given, f"the {ENDING} members")
    return Listing(where, ordered, targets, names, Reordered(members, order), (*passed_over, *notes))


def _seen(indices: Sequence[TarIndex], hidden: bool) -> tuple[list[TarIndex], tuple[str, ...]]:
    """Leave hidden members out."""
    names = [name for index in indices for name in index.names]
    kept, notes = seen_names(names, hidden)
    if len(kept) == len(names):
        return list(indices), notes
    chosen = [[at for at, name in enumerate(index.names) if not is_hidden(name)] for index in indices]
    return [index.part(places) for index, places in zip(indices, chosen, strict=True)], notes


def _index_of(file: str) -> TarIndex:
    try:
        stamp = tar_index.stamp_of(file)
        kept = tar_index.load(file, stamp)
        if kept is None:
            with open_file(file) as stream:
                kept = _scan(file, stream)
            tar_index.save(file, stamp, kept)
    except tarfile.TarError as error:
        raise ImagesError(f"{file}: no whole tar file: {error}") from error
    except OSError as error:
        raise ImagesError(f"{file}: cannot be read: {error.strerror or error}") from error
    return kept


def _scan(file: str, stream: Any) -> TarIndex:
    size = stream.seek(0, 2)
    stream.seek(0)
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    links: list[tuple[str, str]] = []
    labels, links_to_labels = TarLabels(), list[tuple[str, str]]()
    others: Counter[str] = Counter()
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        kept: Any = tar
        for member in tar:
            if member.offset_data + member.size > size:
                raise ImagesError(
                    f"{file}: cut short: {member.name} should end at byte {member.offset_data + member.size}, the file ends at "
                    f"{size}; it and what came after it are lost. Get the file again"
                )
            kept.members = []  # a million of them would be kept
            is_label = member.name.lower().endswith(ENDING)
            if member.islnk() and (is_label or is_image_name(member.name)):
                (links_to_labels if is_label else links).append((member.name, member.linkname))
            if not member.isreg() or member.issparse():
                continue
            if is_image_name(member.name):
                names.append(member.name.removeprefix("./"))
                spans.append((member.offset_data, member.size))
            elif is_label:
                content = tar.extractfile(member)
                place = PartPlace(file, member.name.removeprefix("./"), member.offset_data, member.size)
                labels.add(place, content.read(MOST_BYTES + 1) if content else b"")
            elif _is_image_of_a_kind(member.name):
                others[extension_of(member.name)] += 1
        end = kept.offset
    _require_end(file, stream, end, size)
    _follow(links, names, spans)
    starts, lengths = np.array(spans, np.int64).reshape(-1, 2).T
    for name, target in links_to_labels:
        label = labels.find(target)
        if label is not None:
            labels.add(PartPlace(file, name.removeprefix("./"), 0, 0), label.encode())
    return TarIndex(tuple(names), starts, lengths, labels.of(names), tuple(others.items()))


def _is_image_of_a_kind(name: str) -> bool:
    """Whether a member is an image that is not decoded here: samples have texts and tables beside their images."""
    kind, _ = mimetypes.guess_type(name)
    return kind is not None and kind.startswith("image/") and not is_hidden(name)


def _follow(links: list[tuple[str, str]], names: list[str], spans: list[tuple[int, int]]) -> None:
    """Add second names of files, which `tar` keeps as links where a file has several; links to nothing here are left out."""
    known = dict(zip(names, spans, strict=True)) if links else {}
    for name, target in links:
        span = known.get(target.removeprefix("./"))
        if span is not None:
            names.append(name.removeprefix("./"))
            spans.append(span)


def _require_end(file: str, stream: Any, end: int, size: int) -> None:
    """Refuse a file whose list of members ends without its mark: `tarfile` ends in silence where a header is broken or cut."""
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ImagesError(
            f"{file}: cut short: it ends at byte {size} without a tar file's end mark, so members may be lost. Get the file "
            "again; if it is whole, append the mark: head -c 1024 /dev/zero >> FILE"
        )
    if any(block):
        raise ImagesError(f"{file}: damaged: expected a member's header at byte {end}; what comes after it would be lost")
