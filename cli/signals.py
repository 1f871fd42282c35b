"""Ctrl-C and SIGTERM: the first stops what is under way, in order; the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_NAMES = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


class Signals:
    """What has come so far.

    The first signal is raised in the main thread as a KeyboardInterrupt, for whatever is under way to clean up behind it.
    """

    def __init__(self) -> None:
        self.first: int | None = None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + (self.first or signal.SIGINT)

    @property
    def name(self) -> str:
        """What has happened, in a word."""
        return _NAMES[signal.Signals(self.first or signal.SIGINT)]

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Heed those signals that this process was not started to ignore. For the main thread."""
        before = {number: signal.getsignal(number) for number in _NAMES}
        heeded = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in heeded:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            if self.first is None:  # else the process is about to end, and a second signal may still come
                for number, handler in heeded.items():
                    signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.first is not None:
            _end_at_once(128 + number)
        self.first = number
        raise KeyboardInterrupt


def _end_at_once(code: int) -> None:
    with contextlib.suppress(OSError):
        show_cursor = b"\x1b[?25h" if sys.stderr is not None and os.isatty(2) else b""
        os.write(2, show_cursor + b"Ended at once. What is committed is kept; the same command goes on from there.\n")
    multiprocessing = sys.modules.get("multiprocessing")
    for child in [] if multiprocessing is None else multiprocessing.active_children():
        with contextlib.suppress(OSError, ValueError):
            child.kill()
    os._exit(code)
