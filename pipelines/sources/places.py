"""One image's bytes: where they lie, and how they are got. Small and plain: places travel to workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from labelstore.credentials import without_credentials
from labelstore.errors import ImageDecodeError
from labelstore.pipelines.sources.bytesio import read_all, read_part


class Place(Protocol):
    """Where one image is. ``str(place)`` names it in messages."""

    def read(self) -> bytes:
        """Return the image file's bytes.

        Raises
        ------
        OSError
            It cannot be read; ``strerror`` says why.
        ImageDecodeError
            It is not to be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A file, or an object behind a URL."""

    location: str

    def read(self) -> bytes:
        """See `Place.read`."""
        return read_all(self.location)

    def __str__(self) -> str:
        return without_credentials(self.location)


@dataclass(frozen=True, slots=True)
class PartPlace:
    """Some bytes of a file: a tar file's member, which knows its name."""

    location: str
    member: str
    start: int
    length: int

    def read(self) -> bytes:
        """See `Place.read`."""
        return read_part(self.location, self.start, self.length)

    def __str__(self) -> str:
        return without_credentials(f"{self.location}: {self.member} (at byte {self.start})")


@dataclass(frozen=True, slots=True)
class BlackPlace:
    """One black pixel, for trials."""

    def read(self) -> bytes:
        """See `Place.read`."""
        return b"P6 1 1 255\n\0\0\0"

    def __str__(self) -> str:
        return "a black image"


@dataclass(frozen=True, slots=True)
class ExcludedPlace:
    """An image that must not be read: its row fails with the reason."""

    reason: str

    def read(self) -> bytes:
        """See `Place.read`."""
        raise ImageDecodeError(self.reason)

    def __str__(self) -> str:
        return self.reason
