"""A store -> a running server."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from labelstore.cli.web.app import make_app
from labelstore.cli.web.guard import Rules
from labelstore.cli.web.site import Site
from labelstore.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_CONNECTIONS, _IDLE_SECONDS = 512, 30


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def rules_for(host: str) -> Rules:
    """Return what a server at an address lets through: on other addresses than this machine's own, who has a new token."""
    return Rules() if is_loopback(host) else Rules(token=secrets.token_urlsafe(24))


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
    config = uvicorn.Config(
        make_app(site, rules),
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
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


def open_browser(url: str) -> None:
    """Show an address in the user's browser."""
    webbrowser.open(url)


def _when_started(server: uvicorn.Server, started: Callable[[], None]) -> None:
    while not server.started and not server.should_exit:
        threading.Event().wait(0.05)
    if server.started:
        started()
