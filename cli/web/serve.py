"""A store -> a running server."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from labelstore.cli.web.app import make_app
from labelstore.cli.web.connections import Connections, Limits, limited
from labelstore.cli.web.guard import Rules, is_loopback
from labelstore.cli.web.site import Site
from labelstore.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN_VARIABLE = "LABELSTORE_VIEW_TOKEN"
_LEAST_TOKEN = 16


def rules_for(host: str, *, token: bool = True) -> Rules:
    """Return what a server at an address lets through: requests with its token.

    Parameters
    ----------
    token
        False: all requests of this machine.

    Raises
    ------
    OptionError
        No token, at an address that other machines reach; or one in the environment that is easily guessed.
    """
    limits = _affordable(Limits())
    if token:
        return Rules(token=_token(), limits=limits)
    if not is_loopback(host):
        raise OptionError(f"--no-token: only for this machine's own addresses; --host {host} is reached from others")
    return Rules(limits=limits)


def _token() -> str:
    """The token that the environment names, else a new one."""
    given = os.environ.get(TOKEN_VARIABLE)
    if not given:
        return secrets.token_urlsafe(24)
    if len(given) < _LEAST_TOKEN or not given.isascii() or not all(letter.isalnum() or letter in "-._~" for letter in given):
        raise OptionError(
            f"{TOKEN_VARIABLE}: expected {_LEAST_TOKEN} or more of letters, digits and '-._~', got {len(given)} characters"
        )
    return given


def _affordable(limits: Limits) -> Limits:
    """Leave half of the files that the process may open to the store and the photographs."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    return replace(limits, connections=min(limits.connections, most), a_client=min(limits.a_client, max(most // 2, 1)))


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    OptionError
        The port is taken, or the address is none of this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"--host {host} --port {port}: cannot be used: {getattr(error, 'strerror', None) or error}"
        ) from error
    sock.setblocking(False)
    # Connections inherit it, and asyncio does not set it on those of a socket that it is given: without it the second part of
    # an answer waits 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def address(sock: socket.socket, token: str | None = None) -> str:
    """Return the URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def make_server(site: Site, rules: Rules) -> uvicorn.Server:
    """Return a server of a site, not running."""
    table = Connections(rules.limits)
    config = uvicorn.Config(
        table.watched(make_app(site, rules)),
        http=limited(AutoHTTPProtocol, table),
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def serve(site: Site, rules: Rules, sock: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Serve until the process is interrupted."""
    server = make_server(site, rules)
    watch = threading.Thread(target=_when_started, args=(server, started), daemon=True)
    watch.start()
    server.run(sockets=[sock])


@contextmanager
def serving(site: Site, rules: Rules | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve in a thread as long as the block runs; yields the address."""
    sock = bind(host, 0)
    server = make_server(site, rules or Rules())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.01)
    try:
        yield address(sock).rstrip("/")
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


def _when_started(server: uvicorn.Server, started: Callable[[], None]) -> None:
    while not server.started and not server.should_exit:
        threading.Event().wait(0.05)
    if server.started:
        started()
