"""Runs in this process, and what they tell."""

from __future__ import annotations

from labelstore.pipelines.observer import Observer
from labelstore.pipelines.resources import Resources

SERIAL = Resources(workers=0, device="cpu", threads=1, decode_threads=2, batch_size=4)


class Heard(Observer):
    """Keeps what a run tells. ``said`` are notes and warnings, in order."""

    def __init__(self) -> None:
        self.dashboards: list[str] = []
        self.counts: list[tuple[int, int]] = []
        self.plans: list[tuple[int, int]] = []
        self.warnings: list[str] = []
        self.said: list[str] = []

    def dashboard(self, url: str) -> None:
        self.dashboards.append(url)

    def note(self, text: str) -> None:
        self.said.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
        self.said.append(text)

    def plan(self, total: int, already: int) -> None:
        self.plans.append((total, already))

    def rows(self, done: int, failed: int) -> None:
        self.counts.append((done, failed))
