"""Claims to a store behind a URL, where nothing can be locked: the word of a run that changes what the store says of itself."""

from __future__ import annotations

import datetime
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from labelstore.errors import StoreBusyError
from labelstore.pipelines.group_file import GROUP, attributes_of
from labelstore.pipelines.store_files import store_files
from labelstore.schema import UNFINISHED
from labelstore.storage import local_path
from labelstore.storage.documents import MOST_BYTES

CLAIMED = "labelstore_claimed"
"""The attribute of a store that a run is adding rows to."""
SECONDS = 300
"""How long a claim holds. A request to a server that is away is given up before (`labelstore.storage.patience`)."""


@dataclass(frozen=True)
class Claim:
    """``token`` tells claims apart; ``since`` is UTC in ISO 8601; ``by`` is for messages."""

    token: str
    since: str
    by: str

    @classmethod
    def new(cls) -> Claim:
        """Return a claim of this process, from now on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(uuid.uuid4().hex, now, f"process {os.getpid()} on {socket.gethostname()}")

    def to_attribute(self) -> dict[str, str]:
        """Return what goes into the group's attributes."""
        return asdict(self)

    @property
    def holds(self) -> bool:
        """Whether the run that made it may still be at work: not by a claim out of the future, which nobody would outwait."""
        try:
            since = datetime.datetime.fromisoformat(self.since)
            age = datetime.datetime.now(datetime.UTC) - since
        except (ValueError, TypeError):
            return False
        return abs(age.total_seconds()) < SECONDS

    def __str__(self) -> str:
        return f"{self.by[:80]} (since {self.since[:30]})"


def claim_in(attributes: Mapping[str, Any]) -> Claim | None:
    """Return the claim of a run that creates or extends a store; None where there is none, or one of an older version."""
    said = attributes.get(UNFINISHED, attributes.get(CLAIMED))
    fields = [said.get(name) for name in ("token", "since", "by")] if isinstance(said, Mapping) else [None]
    texts = [field for field in fields if isinstance(field, str)]
    return Claim(*texts) if len(texts) == len(fields) else None


def require_unclaimed(location: str) -> None:
    """Refuse to touch a store behind a URL that another run is adding rows to. Of a local store its lock tells.

    Raises
    ------
    StoreBusyError
    """
    refuse_claimed(_attributes(location), location)


def is_claimed(location: str) -> bool:
    """Whether a run is adding rows to a store behind a URL."""
    claim = claim_in(_attributes(location))
    return claim is not None and claim.holds


def refuse_claimed(attributes: Mapping[str, Any], location: str) -> None:
    """Refuse a store with such attributes; else as `require_unclaimed`."""
    claim = claim_in(attributes) if CLAIMED in attributes else None
    if claim is not None and claim.holds:
        raise StoreBusyError(
            f"{location}: {claim} is adding rows to this store; wait for it. If it was cut off, this is possible some minutes "
            "later"
        )


def _attributes(location: str) -> dict[str, Any]:
    data = None if local_path(location) is not None else store_files(location).read(GROUP, MOST_BYTES)
    return (data and attributes_of(data)) or {}
