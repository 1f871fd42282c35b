"""Rows of a run so far, added up for whoever watches."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import ShardReport
from labelstore.pixels import DEEP


@dataclass
class Tally:
    """Rows of a run so far: finished shards, and what running ones have told."""

    observer: Observer
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0
    failed: int = 0
    num_bytes: int = 0
    converted: int = 0
    refused: int = 0
    notes: set[str] = field(default_factory=set)

    def progress(self, shard: int, done: int, failed: int) -> None:
        """A running shard has come so far."""
        with self.lock:
            if shard in self.finished:  # what a worker told on the way may arrive after its report
                return
            self.running[shard] = (done, failed)
            self._tell()

    def finish(self, report: ShardReport) -> None:
        """A shard is committed."""
        with self.lock:
            self.finished.add(report.shard)
            self.running.pop(report.shard, None)
            self.done += report.rows - len(report.failures)
            self.failed += len(report.failures)
            self.num_bytes += report.num_bytes
            self.converted += report.converted
            self.refused += sum(reason.startswith(DEEP) for _, reason in report.failures)
            self._tell()
            self.observer.written(self.num_bytes)
        for note in report.notes:
            if note not in self.notes:
                self.notes.add(note)
                self.observer.warning(note)

    def conclude(self, grey16: str) -> None:
        """All shards are committed: say what became of images of more than 8 bits."""
        if self.refused:
            self.observer.warning(
                f"{self.refused:,} images are {DEEP} and failed. A new store with --grey16 scale makes 8 bits of them; "
                "--grey16 clip takes them as ImageFolder does, most of them as white"
            )
        if self.converted:
            how = "scaled to 8" if grey16 == "scale" else "clipped at 255, most of them to white, as ImageFolder does"
            self.observer.warning(f"{self.converted:,} images are {DEEP}: {how}")

    def _tell(self) -> None:
        done, failed = (sum(counts) for counts in zip((self.done, self.failed), *self.running.values(), strict=True))
        self.observer.rows(done, failed)
