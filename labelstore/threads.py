"""How many threads a read may use."""

from __future__ import annotations

import os
import sys

from labelstore.errors import OptionError

_MOST = 4


def usual_threads() -> int:
    """Return the cores that this process may use, four at most; one in a process that multiprocessing has started."""
    process = sys.modules.get("multiprocessing.process")  # not imported: then nobody has started us by it
    if process is not None and process.parent_process() is not None:
        return 1
    return min(_MOST, len(os.sched_getaffinity(0)))


def check_threads(threads: int | None) -> int | None:
    """Return what a caller asks for, checked.

    Raises
    ------
    OptionError
        No whole number of at least 1.
    """
    if threads is None or (isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1):
        return threads
    raise OptionError(f"threads: expected a whole number of at least 1, got {threads!r}")
