"""A run as lines of JSON: for log collectors, and for programs that start runs."""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any, TextIO

from labelstore.cli.telling import json_text
from labelstore.credentials import without_credentials
from labelstore.pipelines.observer import Observer

_SECONDS_BETWEEN_COUNTS = 5.0


class JsonLog(Observer):
    """Writes a line of JSON for everything that a run tells, to stderr: ``time`` (UTC), ``event``, and what belongs to it.

    Events: ``phase``, ``dashboard``, ``note``, ``warning``, ``plan`` (``rows``, ``already``), ``rows`` (``done``, ``failed``,
    ``left``, ``images_per_second``; every few seconds), ``finished`` (the summary), ``error``.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._start = self._last = time.monotonic()
        self._total = self._already = 0

    def phase(self, text: str) -> None:
        """See `Observer.phase`."""
        self._write("phase", text=without_credentials(text))

    def dashboard(self, url: str) -> None:
        """See `Observer.dashboard`."""
        self._write("dashboard", url=url)

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self._write("note", text=without_credentials(text))

    def warning(self, text: str) -> None:
        """See `Observer.warning`."""
        self._write("warning", text=without_credentials(text))

    def plan(self, total: int, already: int) -> None:
        """See `Observer.plan`."""
        self._total, self._already = total, already
        self._start = self._last = time.monotonic()
        self._write("plan", rows=total, already=already)

    def rows(self, done: int, failed: int) -> None:
        """See `Observer.rows`."""
        now, left = time.monotonic(), self._total - self._already - done - failed
        if now - self._last < _SECONDS_BETWEEN_COUNTS and left:
            return
        self._last = now
        rate = round((done + failed) / max(now - self._start, 1e-3), 3)
        self._write("rows", done=done, failed=failed, left=left, images_per_second=rate)

    def finished(self, summary: dict[str, Any]) -> None:
        """The run is over; this is what it came to."""
        self._write("finished", **summary)

    def failed(self, text: str) -> None:
        """The run ends with an error."""
        self._write("error", text=without_credentials(text))

    def _write(self, event: str, **more: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._stream.write(json_text({"time": now, "event": event, **more}) + "\n")
        self._stream.flush()
