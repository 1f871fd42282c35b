"""`repair`: what `verify` finds damaged is given up in such a way that annotate makes just that again.

Nothing is deleted but what runs have left over: commits and files of ids that are given up keep their content under another
name, and come back if it turns out that they were right: a cable, a controller or a server has lied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from labelstore.errors import RunError
from labelstore.pipelines.claims import require_unclaimed
from labelstore.pipelines.folder import Entry
from labelstore.pipelines.left_overs import SET_ASIDE, Kind, remove_left_overs, sort_files
from labelstore.pipelines.links import require_no_links
from labelstore.pipelines.lock import store_lock
from labelstore.pipelines.metadata import restore_metadata
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.shard_check import check_shard
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.store import writing
from labelstore.pipelines.store_files import StoreFiles, store_files
from labelstore.pipelines.verifying import Verification, right_index, store_attributes, verify_store
from labelstore.schema import StoreInfo, index_arrays
from labelstore.storage.metadata import commits_spec


@dataclass(frozen=True)
class Repair:
    """What was done about what was found. ``kept`` are problems that only the user can deal with: files of his own."""

    found: Verification
    shards: int
    index_files: int
    left_overs: int
    metadata: bool
    kept: tuple[str, ...]
    brought_back: int = 0
    """Files that had been set aside, and were right after all."""


def never(question: str) -> bool:
    """Agree to nothing."""
    return False


def repair_store(location: str, workers: int | None, observer: Observer, agree: Callable[[str], bool] = never) -> Repair:
    """Set damaged shards back to pending, durably; restore metadata; set lost ids' files aside; remove what runs left over.

    Parameters
    ----------
    agree
        Asked, in words, where more than half of the shards would be given up.

    Raises
    ------
    StoreBusyError
        Another process writes to the store.
    StoreNotFoundError, FormatError
        There is no store, or nothing that says what it is; or a part of it is behind a link.
    CannotReadError
        Rights are missing, or a server does not answer.
    RunError
        More than half of the shards would go, and that was not agreed to. Nothing was changed.
    StoreWriteError
    """
    require_no_links(location)
    store_attributes(store_files(location), location)  # a lock must not be what makes the folder of no store
    require_unclaimed(location)
    with store_lock(location):
        with writing(location):
            back = _bring_back(location, store_attributes(store_files(location), location)[1])
        found = verify_store(location, workers, observer, alone=True)
        _require_agreement(found, agree)
        with writing(location):
            return _mend(location, found, back)


def _mend(location: str, found: Verification, back: int) -> Repair:
    info, files, sink = found.info, store_files(location), open_sink(location)
    if found.metadata:
        restore_metadata(location, store_attributes(files, location)[0], info)
    removed = remove_left_overs(location)
    lost = [f"{spec.name}/{spec.file_name(shard)}" for spec in index_arrays(info) for shard in found.lost.get(spec.name, ())]
    commits = commits_spec(info)
    undone = [f"{commits.name}/{commits.file_name(shard)}" for shard in found.damaged]
    for key in (*lost, *undone):
        sink.move(key, key + SET_ASIDE)
    sink.flush([*lost, *undone])
    return Repair(found, len(undone), len(lost), removed, found.metadata, tuple(found.strangers), back)


def _require_agreement(found: Verification, agree: Callable[[str], bool]) -> None:
    """Ask before more than half of the shards go: a disk that is not mounted, or fails, looks like that."""
    given_up = len(set(found.damaged).union(*found.lost.values()))
    if given_up <= 1 or 2 * given_up <= found.info.num_shards:
        return
    most = f"{given_up:,} of {found.info.num_shards:,} shards are damaged, and would be given up and made again"
    if not agree(most):
        raise RunError(
            f"{found.store}: {most}. Nothing was changed: look first whether a disk is not mounted, or fails (`dmesg`); "
            "--yes gives them up"
        )


class _SetAside:
    """Files as they would be with those in place that were set aside. Reads only."""

    def __init__(self, files: StoreFiles, keys: set[str]) -> None:
        self._files, self._keys = files, keys

    def entries(self) -> Iterator[Entry]:
        """See `StoreFiles.entries`."""
        return self._files.entries()

    def read(self, key: str, most: int) -> bytes | None:
        """See `StoreFiles.read`."""
        return self._files.read(key + SET_ASIDE if key in self._keys else key, most)


def _bring_back(location: str, info: StoreInfo) -> int:
    """Give files that were set aside their names again, if they are right; return how many."""
    files, sink = store_files(location), open_sink(location)
    aside = {entry.name.removesuffix(SET_ASIDE) for entry in sort_files(files.entries(), info)[Kind.SET_ASIDE]}
    if not aside:
        return 0
    right = list(_right(_SetAside(files, aside), info, aside))
    for key in right:
        sink.move(key + SET_ASIDE, key)
    sink.flush(right)
    return len(right)


def _right(files: StoreFiles, info: StoreInfo, keys: set[str]) -> Iterator[str]:
    commits = commits_spec(info)
    for shard in range(info.num_shards):
        for spec in index_arrays(info):
            key = f"{spec.name}/{spec.file_name(shard)}"
            if key in keys and right_index(files, spec, shard, info):
                yield key
        key = f"{commits.name}/{commits.file_name(shard)}"
        if key in keys:
            check = check_shard(files, info, shard)
            if check.committed and not check.problems and not check.unreadable:
                yield key
