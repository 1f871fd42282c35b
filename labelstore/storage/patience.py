"""Requests to servers that may be away for a while: tried again, as long as that may help."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

SECONDS, SECONDS_AT_FIRST = 120.0, 30.0
"""How long something is tried again; and where nothing has been answered yet, so that the address may be wrong."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_BUSY_CODES = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException"}
_PASSING = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "HTTPClientError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ServerTimeoutError",
    "IncompleteRead",
    "FSTimeoutError",
    "ResponseStreamingError",
    "ResponseParserError",
}
"""Classes of clients of object stores (botocore, aiohttp, urllib3, fsspec), by name: none of them need be installed."""
T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]], seconds: float = SECONDS) -> T:
    """Await a call, and return what it gives; again, with longer and longer pauses, while it fails in a way that may pass.

    A missing object or bucket, and credentials that are refused, are raised at once.
    """
    pauses = _pauses(seconds)
    while True:
        try:
            return await call()
        except Exception as error:
            pause = next(pauses, None)
            if pause is None or not may_pass(error):
                raise
        await asyncio.sleep(pause)


def may_pass(error: BaseException) -> bool:
    """Whether the same request may be answered later."""
    return any(map(_passes, with_causes(error)))


def _pauses(seconds: float) -> Iterator[float]:
    """Pauses until time is up; of many who wait, not all the same."""
    end, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while True:
        chosen = pause * random.uniform(0.5, 1.0)
        if time.monotonic() + chosen > end:
            return
        yield chosen
        pause = min(2 * pause, _LONGEST_PAUSE)


def _passes(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError):
        return False
    answer: Any = getattr(error, "response", None)  # botocore's, with the server's own words
    if isinstance(answer, dict):
        code = str(answer.get("Error", {}).get("Code", ""))
        return code in _BUSY_CODES or answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in _BUSY
    if isinstance(error, ConnectionError | TimeoutError) or getattr(error, "status", None) in _BUSY:
        return True
    return not _PASSING.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
