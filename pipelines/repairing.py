"""`repair`: what `verify` finds damaged is given up in such a way that annotate makes just that again."""

from __future__ import annotations

from dataclasses import dataclass

from labelstore.encodings import committed_arrays
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.lock import store_lock
from labelstore.pipelines.metadata import restore_metadata
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.sink import open_sink
from labelstore.pipelines.store import writing
from labelstore.pipelines.store_files import store_files
from labelstore.pipelines.verifying import Verification, store_attributes, verify_store
from labelstore.schema import index_arrays
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


def repair_store(location: str, workers: int | None, observer: Observer) -> Repair:
    """Set damaged shards back to pending, durably; restore metadata; remove lost ids' files and what runs have left over.

    Raises
    ------
    StoreBusyError
        Another process writes to the store.
    StoreNotFoundError, FormatError
        There is no store, or nothing that says what it is.
    StoreWriteError
    """
    store_attributes(store_files(location), location)  # a lock must not be what makes the folder of no store
    with store_lock(location):
        found = verify_store(location, workers, observer, alone=True)
        with writing(location):
            return _mend(location, found)


def _mend(location: str, found: Verification) -> Repair:
    info, files, sink = found.info, store_files(location), open_sink(location)
    if found.metadata:
        restore_metadata(sink, files, store_attributes(files, location)[0], info)
    removed = remove_left_overs(location)
    lost = [f"{spec.name}/{spec.file_name(shard)}" for spec in index_arrays(info) for shard in found.lost.get(spec.name, ())]
    commits = commits_spec(len(committed_arrays(info)))
    undone = [f"{commits.name}/{commits.file_name(shard)}" for shard in found.damaged]
    for key in (*lost, *undone):
        sink.delete(key)
    sink.flush([*lost, *undone])
    return Repair(found, len(undone), len(lost), removed, found.metadata, tuple(found.strangers))
