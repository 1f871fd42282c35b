"""Tar files of images, as WebDataset writes them: an index of each is made once, then members are read where they lie."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import tar_index
from labelstore.pipelines.sources.bytesio import open_file
from labelstore.pipelines.sources.listing import NO_LABEL, Listing, Reordered, check_ids, folder_targets, sorted_by_id
from labelstore.pipelines.sources.places import PartPlace
from labelstore.pipelines.sources.spec import is_image_name
from labelstore.pipelines.sources.tar_index import TarIndex

_AT_ONCE = 8
_LABEL = "cls"
_LONGEST_LABEL = 20


@dataclass(frozen=True)
class _Members:
    files: Sequence[str]
    indices: Sequence[TarIndex]
    firsts: NDArray[np.int64]

    def __getitem__(self, row: int) -> PartPlace:
        file = int(np.searchsorted(self.firsts, row, side="right")) - 1
        index, at = self.indices[file], row - int(self.firsts[file])
        return PartPlace(self.files[file], index.names[at], int(index.starts[at]), int(index.lengths[at]))


def list_tars(files: Sequence[str], where: str) -> Listing:
    """List the images in tar files, in byte order of their names. Labels: folders, else ``.cls`` members.

    Raises
    ------
    ImagesError
        A file is missing, no tar file, or cut short; there are no images; or two have one name.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        indices = list(threads.map(_index_of, files))
    ids = [name for index in indices for name in index.names]
    if not ids:
        raise ImagesError(f"{where}: no images in these {len(files)} tar files")
    firsts = np.cumsum([0, *(len(index.names) for index in indices)])[:-1]
    members = _Members(files, indices, firsts)
    check_ids(ids, members, where)
    order = sorted_by_id(ids)
    ordered = tuple(ids[row] for row in order.tolist())
    targets, names = folder_targets(ordered)
    labels = np.concatenate([index.labels for index in indices])
    if names is None and (labels != NO_LABEL).any():
        targets = labels[order]
    return Listing(where, ordered, targets, names, Reordered(members, order))


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
    labels: dict[str, int] = {}
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        kept: Any = tar
        for member in tar:
            if member.offset_data + member.size > size:
                raise ImagesError(
                    f"{file}: cut short: {member.name} should end at byte {member.offset_data + member.size}, the file ends at "
                    f"{size}; it and what came after it are lost. Get the file again"
                )
            kept.members = []  # a million of them would be kept
            if member.islnk() and is_image_name(member.name):
                links.append((member.name, member.linkname))
            if not member.isreg() or member.issparse():
                continue
            if is_image_name(member.name):
                names.append(member.name.removeprefix("./"))
                spans.append((member.offset_data, member.size))
            elif member.name.endswith(f".{_LABEL}") and member.size <= _LONGEST_LABEL:
                content = tar.extractfile(member)
                labels[sample_key(member.name)] = _number(content.read() if content else b"")
        end = kept.offset
    _require_end(file, stream, end, size)
    _follow(links, names, spans)
    starts, lengths = np.array(spans, np.int64).reshape(-1, 2).T
    numbers = [labels.get(sample_key(name), NO_LABEL) for name in names]
    return TarIndex(tuple(names), starts, lengths, np.array(numbers, np.int32))


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


def sample_key(name: str) -> str:
    """Return what WebDataset tells samples apart by: the name up to the first dot of its last part."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    return folder + slash + base.split(".")[0]


def _number(text: bytes) -> int:
    try:
        number = int(text)
    except ValueError:
        return NO_LABEL
    return number if 0 <= number < 2**31 else NO_LABEL
