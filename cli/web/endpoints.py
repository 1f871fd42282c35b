"""What an endpoint of the API is, and how a request gets to it and its answer back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import anyio
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from labelstore.cli.web.parameters import Parameter, RequestError, read_parameters
from labelstore.cli.web.site import Site
from labelstore.errors import (
    BoxError,
    DamagedError,
    FailedRowError,
    ImageDecodeError,
    ImagesError,
    KeysError,
    LabelStoreError,
    OptionError,
    PendingRowError,
    RowIndexError,
    UnknownIdError,
)

JSON, RAW, NPY, NPZ = "application/json", "application/octet-stream", "application/x-npy", "application/x-npz"
_STATUS: tuple[tuple[type[LabelStoreError], int], ...] = (
    (UnknownIdError, 404),
    (RowIndexError, 404),
    (ImagesError, 404),
    (ImageDecodeError, 404),
    (PendingRowError, 409),
    (FailedRowError, 409),
    (BoxError, 422),
    (KeysError, 422),
    (OptionError, 422),
    (DamagedError, 500),
)


@dataclass(frozen=True)
class Call:
    """A request, checked: its parameters by name, its body (parsed JSON; None without one), what the client has already."""

    site: Site
    given: Mapping[str, Any]
    body: Any = None
    kept: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.given[name]


@dataclass(frozen=True)
class Endpoint:
    """An address of the API.

    Parameters
    ----------
    run
        From a call to a response; runs in a thread. What it raises of labelstore's errors becomes an answer.
    body
        JSON Schema of the request's body; None where there is none.
    answer
        JSON Schema of the answer, or a media type by itself for one that is no JSON.
    others
        Media types that an answer may have instead.
    statuses
        HTTP statuses that an answer may have besides 200, 422 and those of the guard.
    """

    path: str
    summary: str
    run: Callable[[Call], Response]
    parameters: tuple[Parameter, ...] = ()
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    answer: Mapping[str, Any] | str = field(default_factory=dict)
    others: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        try:
            query: dict[str, list[str]] = {}
            for name, value in request.query_params.multi_items():
                query.setdefault(name, []).append(value)
            given = read_parameters(self.parameters, query)
            body = parse_json(await request.body()) if self.body is not None else None
            site: Site = request.app.state.site
            call = Call(site, given, body, request.headers.get("if-none-match", ""))
            site.surveyor.asked += 1  # in the event loop's thread alone
            try:
                return await run_sync(self.run, call, limiter=_limiter(request))
            finally:
                site.surveyor.asked -= 1
        except LabelStoreError as error:
            return refusal(error)


def _limiter(request: Request) -> anyio.CapacityLimiter:
    """Threads that work at a time; made in the event loop that they belong to."""
    state = request.app.state
    if not hasattr(state, "limiter"):
        state.limiter = anyio.CapacityLimiter(8)
    limiter: anyio.CapacityLimiter = state.limiter
    return limiter


def parse_json(data: bytes) -> Any:
    """Return what a body says.

    Raises
    ------
    RequestError
    """
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: expected JSON: {str(error)[:200]}") from error


def as_json(content: Any, status: int = 200, tag: str | None = None) -> Response:
    """Return an answer in JSON."""
    data = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(data, status, _tagged(tag), JSON)


def tagged(call: Call, key: str, make: Callable[[], Response]) -> Response:
    """Return an answer that does not change as long as ``key`` does not, or only that it has not changed."""
    tag = f'"{blake2b(key.encode(errors="replace"), digest_size=12).hexdigest()}"'
    if tag in (part.strip().removeprefix("W/") for part in call.kept.split(",")):
        return Response(status_code=304, headers=_tagged(tag))
    response = make()
    response.headers.update(_tagged(tag))
    return response


def refusal(error: LabelStoreError) -> Response:
    """Return what is said of a request that cannot be answered."""
    status = error.status if isinstance(error, RequestError) else _status(error)
    return as_json({"error": {"status": status, "kind": type(error).__name__, "message": str(error)}}, status)


def _status(error: LabelStoreError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


def _tagged(tag: str | None) -> dict[str, str]:
    return {} if tag is None else {"etag": tag, "cache-control": "private, max-age=60"}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
