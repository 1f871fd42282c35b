"""What a store comes to: rows by status, bytes, failures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelstore.reader import LabelMapReader
from labelstore.schema import Status
from labelstore.storage import LOCK, local_path


@dataclass(frozen=True)
class StoreCounts:
    """Rows of a store by status, and its size on disk (None where it is not a local folder)."""

    rows: int
    done: int
    failed: int
    pending: int
    size_bytes: int | None

    @property
    def bytes_a_map(self) -> float | None:
        """All of the store's bytes over the maps that it holds."""
        return self.size_bytes / self.done if self.size_bytes is not None and self.done else None


def count_rows(reader: LabelMapReader, location: str) -> StoreCounts:
    """Count a store's rows by status."""
    counts = np.bincount(reader.status(), minlength=len(Status))
    path = local_path(location)
    size = None if path is None else folder_bytes(path)
    done, failed, pending = (int(counts[status]) for status in (Status.DONE, Status.FAILED, Status.PENDING))
    return StoreCounts(reader.info.num_images, done, failed, pending, size)


def failures_of(reader: LabelMapReader, most: int) -> tuple[tuple[str, str], ...]:
    """Return (image id, reason) of failed rows."""
    rows = np.flatnonzero(reader.status() == Status.FAILED)[:most]
    return tuple((reader.ids[row], reader.error(row)) for row in rows.tolist())


def folder_bytes(path: Path) -> int:
    """Add up the lengths of all files below a folder, but for the lock of who is writing there."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.name != LOCK and file.is_file())
