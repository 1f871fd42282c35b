"""How many cores there are and threads a read may use, and work done by threads that are gone when it is done."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from labelstore.errors import OptionError

_MOST = 4
_WORTH_A_THREAD = 64
"""Rows below which a thread costs more than it saves (about 0.1 ms against 10 microseconds a row)."""


_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**31


class ProcessLock:
    """The lock that it is called for, between threads; a new one in a forked child: a thread that is not there may hold it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __call__(self) -> threading.Lock:
        """Return the lock."""
        return self._lock

    def renew(self) -> None:
        """Forget that anybody holds it."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def _forked() -> None:
    """Make all locks anew, in a child that has one thread yet: of two that found out later, each would make its own."""
    for lock in _locks:
        lock.renew()


os.register_at_fork(after_in_child=_forked)


def usable_cores() -> int:
    """Return how many cores this process may use: those that it is bound to, or a container's share of them, rounded up."""
    return max(min(len(os.sched_getaffinity(0)), _allowed_cores(_CGROUPS)), 1)


@functools.cache
def _allowed_cores(root: Path) -> int:
    """What the control group that a container sees as its root allows, of either version; very many where it says nothing."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        allowed, period = (root / "cpu.max").read_text().split()
        return _NO_LIMIT if allowed == "max" else math.ceil(int(allowed) / int(period))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        return math.ceil(quota / int(period)) if quota > 0 else _NO_LIMIT
    return _NO_LIMIT


def usual_threads() -> int:
    """Return the cores that this process may use, four at most; one in a process that multiprocessing has started."""
    process = sys.modules.get("multiprocessing.process")  # not imported: then nobody has started us by it
    if process is not None and process.parent_process() is not None:
        return 1
    return min(_MOST, usable_cores())


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


def in_parts(work: Callable[[slice], None], count: int, threads: int) -> None:
    """Call ``work`` with the parts of ``range(count)``, each in a thread of its own, the first in this one.

    An error of any of them is raised here, once all are done.
    """
    parts = max(min(threads, count // _WORTH_A_THREAD), 1)
    errors: list[BaseException] = []

    def run(part: int) -> None:
        try:
            work(slice(count * part // parts, count * (part + 1) // parts))
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    helpers = [threading.Thread(target=run, args=(part,), daemon=True) for part in range(1, parts)]
    for helper in helpers:
        helper.start()
    run(0)
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
