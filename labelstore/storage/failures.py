"""What the system says when a file cannot be read, in words and with what to do; and which of that is worth a second try."""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from labelstore.errors import StoreReadError

SCARCE = (errno.EMFILE, errno.ENFILE)
"""No descriptor is left, of the process or of the machine."""
_HINTS = {
    errno.EMFILE: "the process has too many open files: raise its limit (`ulimit -n`), or close some",
    errno.ENFILE: "the machine has too many open files: raise its limit (`sysctl fs.file-max`)",
    errno.EACCES: "ask its owner for the right to read it",
    errno.EPERM: "ask its owner for the right to read it",
    errno.ESTALE: "it was replaced on its server: read again, or mount the disk anew",
    errno.EIO: "the disk or its server fails: look into the system's log (`dmesg`), and read again",
}
_AWAY = "the disk's server is away: read again when it is back"
_HINTS |= dict.fromkeys(
    (errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH), _AWAY
)
_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, *itertools.repeat(0.03, 100))
P = ParamSpec("P")
T = TypeVar("T")


def unreadable(path: str, error: OSError) -> StoreReadError:
    """Say that the system does not let a file be read, and what to do. The error keeps the number of the system's."""
    hint = _HINTS.get(error.errno or 0)
    told = StoreReadError(f"{path}: cannot be read: {error.strerror or error}" + (f"; {hint}" if hint else ""))
    told.errno, told.strerror, told.filename = error.errno, error.strerror, path
    return told


def again(read: Callable[P, T]) -> Callable[P, T]:
    """Call a function that opens the files it reads; again where that helps.

    That is once more if a handle went stale meanwhile (NFS: ESTALE), and for three seconds if no descriptor is left: others let
    go of theirs within moments, or never. What the function had opened is closed while it waits, so that no two wait for each
    other.
    """

    @wraps(read)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        pauses = iter(_PAUSES)
        left = {errno.ESTALE: iter([0.0]), **dict.fromkeys(SCARCE, pauses)}
        while True:
            try:
                return read(*args, **kwargs)
            except StoreReadError as error:
                pause = next(left.get(error.errno or 0, iter([])), None)
                if pause is None:
                    raise
            time.sleep(pause)

    return call
