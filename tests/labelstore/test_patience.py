"""What is asked again, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from labelstore.storage import patience
from labelstore.storage.patience import may_pass, patiently


class EndpointConnectionError(Exception):
    """Named as botocore's."""


class ClientError(Exception):
    """As botocore's: with the server's answer."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def because_of(cause: Exception) -> Exception:
    error = OSError("something")
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    EndpointConnectionError(),
    ClientError("SlowDown", 503),
    ClientError("InternalError", 500),
    because_of(EndpointConnectionError()),
]
LASTING = [
    FileNotFoundError(),
    PermissionError(),
    ValueError(),
    OSError(28, "No space left on device"),
    ClientError("NoSuchBucket", 404),
    ClientError("SignatureDoesNotMatch", 403),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.001)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_asked_again(error):
    calls: list[int] = []

    async def call() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise error
        return "here"

    assert may_pass(error)
    assert asyncio.run(patiently(call)) == "here"
    assert len(calls) == 4


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_is_raised_at_once(error):
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        asyncio.run(patiently(call))
    assert calls == [1]


def test_patience_ends():
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(patiently(call, seconds=0.05))
    assert 2 <= len(calls) <= 60
