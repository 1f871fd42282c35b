"""Connections: how many there may be, and how long a request may take to arrive.

A connection waits from when it is made, and from when it has been answered, until the whole head of its next request is there.
Where there are too many, the one that has waited longest goes, and first of all one that has not shown the token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

Place = tuple[str, int]
_MOST_HEAD = 2**16
_TRUSTED = "labelstore.trusted"


@dataclass(frozen=True)
class Limits:
    """What connections may take.

    Parameters
    ----------
    connections, a_client
        How many at a time, in all and of one client (an address; of IPv6, a network of 64 bits).
    head_seconds
        From when a connection is made or answered until the whole head of the next request is there.
    body_seconds
        From there until the whole body is.
    """

    connections: int = 512
    a_client: int = 64
    head_seconds: float = 20.0
    body_seconds: float = 60.0


class Connection:
    """One connection. Lives in the event loop's thread."""

    def __init__(
        self, transport: asyncio.Transport, client: str, seconds: float, forget: Callable[[Connection], object]
    ) -> None:
        self.client, self.busy, self.trusted = client, 0, False
        self._transport, self._seconds, self._forget = transport, seconds, forget
        self._taken = self._unsent = 0
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    @property
    def may_go(self) -> bool:
        """Whether it can be closed for another one: nothing is being answered or, to a client with the token, being sent."""
        return not self.busy and not (self.trusted and self._transport.get_write_buffer_size())

    def takes(self, count: int) -> bool:
        """Whether so many more bytes are taken: a head without an end is not."""
        if not self.busy and self._taken > _MOST_HEAD:
            self.abort()
            return False
        self._taken += count
        return True

    def waits(self) -> None:
        """Note that it has been answered."""
        self.since, self._taken = self._loop.time(), 0

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()

    def closed(self) -> None:
        """Note that it is no more."""
        self._timer.cancel()
        self._forget(self)

    def _look(self) -> None:
        """Hang up where it has waited for too long; an answer that is still being taken does not count as waiting."""
        unsent, left = self._transport.get_write_buffer_size(), self.since + self._seconds - self._loop.time()
        if self.busy or (unsent and unsent != self._unsent):
            left = self._seconds
        self._unsent = unsent
        if left <= 0:
            self.abort()
        else:
            self._timer = self._loop.call_later(left, self._look)


class Connections:
    """The connections of a server. Lives in the event loop's thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[Place, Connection] = {}

    def opened(self, transport: asyncio.Transport) -> Connection | None:
        """Take a new connection in, in place of another one if need be; None where there is no room for it."""
        name = transport.get_extra_info("peername")
        place = (str(name[0]), int(name[1])) if name else ("", id(transport))
        client = _network(place[0])
        if not (self._has_room(self._limits.a_client, client) and self._has_room(self._limits.connections)):
            transport.abort()
            return None
        found = self._open[place] = Connection(transport, client, self._limits.head_seconds, partial(self._forget, place))
        return found

    def _has_room(self, most: int, client: str | None = None) -> bool:
        """Whether one more is within a limit: hangs up on another one if need be."""
        some = [connection for connection in self._open.values() if client in (None, connection.client)]
        return len(some) < most or _make_room(some)

    def _forget(self, place: Place, connection: Connection) -> None:
        if self._open.get(place) is connection:
            del self._open[place]

    def watched(self, app: ASGIApp) -> ASGIApp:
        """Return an application that notes which connections are being answered."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            host, port = scope.get("client") or ("", 0)
            connection = self._open.get((host, port))
            if connection is None:
                await app(scope, receive, send)
                return
            connection.busy += 1
            try:
                await app(scope, receive, send)
            finally:
                connection.busy -= 1
                connection.trusted |= scope.get(_TRUSTED, False)
                connection.waits()

        return answer


class Limited(asyncio.Protocol):
    """A server's protocol whose connections are in a table: hands everything on to the protocol that it stands before."""

    inner: type[asyncio.Protocol]
    table: Connections

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._inner = self.inner(*arguments, **options)
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._inner.connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self._connection = self.table.opened(transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._connection is not None and self._connection.takes(len(data)):
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._connection is not None:
            self._connection.closed()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._inner.resume_writing()


def limited(protocol: type[asyncio.Protocol], connections: Connections) -> type[Limited]:
    """Return a protocol whose connections are held in a table, within its limits."""

    class Here(Limited):
        inner, table = protocol, connections

    return Here


def client_of(scope: Scope) -> str:
    """Return the client that a request comes from, as limits count it."""
    return _network((scope.get("client") or ("", 0))[0])


def trust(scope: Scope) -> None:
    """Note that a request has been let through."""
    scope[_TRUSTED] = True


def _make_room(some: list[Connection]) -> bool:
    """Hang up on the connection that can go first; whether there is one."""
    able = [connection for connection in some if connection.may_go]
    if not able:
        return False
    gone = min(able, key=lambda connection: (connection.trusted, connection.since))
    gone.closed()
    gone.abort()
    return True


def _network(host: str) -> str:
    """An address; of IPv6 its network, all of which one client may have."""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(found, IPv6Address):
        return host
    return str(found.ipv4_mapped) if found.ipv4_mapped else str(ip_address(int(found) >> 64 << 64))
