"""Small files that show whether a store's place can be written, and is the same place for two processes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labelstore.errors import RunError, StoreWriteError
from labelstore.pipelines.sink import Sink, open_sink
from labelstore.pipelines.store_files import store_files
from labelstore.storage import PARTIAL, local_path

_MOST_BYTES = 1 << 10
_HINTS = {
    "TooSkewed": "the clock is wrong: set it right",
    "NoCredentials": "give them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "SignatureDoesNotMatch": "the credentials are wrong: see AWS_SECRET_ACCESS_KEY",
    "InvalidAccessKeyId": "the credentials are wrong: see AWS_ACCESS_KEY_ID",
    "access key": "the credentials are wrong: see AWS_ACCESS_KEY_ID",
    "bucket does not exist": "make the bucket first",
    "NoSuchBucket": "make the bucket first",
    "EndpointConnection": "see AWS_ENDPOINT_URL",
}


@dataclass(frozen=True)
class Mark:
    """A small file in a store's place, by its name; whatever is left of one, the next run removes."""

    name: str

    @classmethod
    def new(cls) -> Mark:
        """Return one with a name that no other has."""
        return cls(f"mark.{uuid.uuid4().hex}{PARTIAL}")

    def leave(self, sink: Sink) -> None:
        """Write it."""
        sink.put({self.name: self.name.encode()})

    def find(self, store: str) -> None:
        """Make sure that it is there.

        Raises
        ------
        RunError
            It is not: the store's place is another one here than where it was left.
        """
        if store_files(store).read(self.name, _MOST_BYTES) != self.name.encode():
            place = "folder, on a disk that all machines share" if local_path(store) is not None else "server and bucket"
            raise RunError(f"it must be the same {place}")


@contextmanager
def marked(store: str) -> Iterator[tuple[Mark, Sink]]:
    """Leave a mark where the store is, or is to be; yield it, and what removes others. Gone afterwards.

    Raises
    ------
    StoreWriteError
        It cannot be written there.
    """
    mark = Mark.new()
    try:
        sink = open_sink(store)
        mark.leave(sink)
    except Exception as error:  # whatever the file system behind a URL raises
        raise StoreWriteError(f"{store}: cannot be written: {in_words(error)}") from error
    try:
        yield mark, sink
    finally:
        sink.delete(mark.name)


def require_writable(store: str) -> None:
    """Refuse a place behind a URL that cannot be written; who writes to a folder holds its lock.

    Raises
    ------
    StoreWriteError
    """
    if local_path(store) is None:
        with marked(store):
            pass


def in_words(error: Exception) -> str:
    """Say in a line what went wrong, and what to do about it where an object store's answer tells."""
    text = str(getattr(error, "strerror", None) or error).strip()
    reason = text.splitlines()[0][:300] if text else type(error).__name__
    said = f"{type(error).__name__} {error}"
    return reason + next((f" ({hint})" for sign, hint in _HINTS.items() if sign in said), "")
