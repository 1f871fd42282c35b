"""The door of the local cluster's dashboard: a token opens it, and no other web page gets in.

Light to import: no Dask, no torch.
"""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import urlsplit

from tornado import web
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router

OPEN_PATHS = frozenset({"/health", "/metrics"})
"""Served without a token, to monitoring on this machine: they hold counts, and no names of files."""
_PARAMETER = "token"


class Door(Router):
    """Routes requests to an application if they show the token, once in the URL and then in a cookie.

    Without the token only `OPEN_PATHS` are served, to requests for a loopback name: a page of another site that has its own
    name resolve to this machine (DNS rebinding) is refused. With it, a request from a page of another origin is refused,
    which also covers WebSockets.

    Parameters
    ----------
    application
        What is behind the door.
    token
        Secret of this run.
    port
        Names the cookie: browsers send cookies to all ports of a host.
    """

    def __init__(self, application: Router, token: str, port: int) -> None:
        self._application, self._token = application, token
        self._cookie = f"labelstore-dashboard-{port}"
        self._own = web.Application()

    def find_handler(self, request: HTTPServerRequest, **kwargs: object) -> HTTPMessageDelegate | None:
        """Return what answers the request."""
        if request.path in OPEN_PATHS and is_loopback_name(request.host_name):
            return self._application.find_handler(request, **kwargs)
        if _from_another_page(request):
            return self._own.get_handler_delegate(request, _Refusal, {"reason": "a page of another origin asks"})
        cookie = request.cookies.get(self._cookie)
        if cookie is not None and self._is_token(cookie.value):
            return self._application.find_handler(request, **kwargs)
        given = request.query_arguments.get(_PARAMETER, [b""])[-1]
        if request.method == "GET" and self._is_token(given.decode("latin-1")):
            return self._own.get_handler_delegate(request, _Welcome, {"cookie": self._cookie, "token": self._token})
        reason = "open the link that the run has printed: it holds the token"
        return self._own.get_handler_delegate(request, _Refusal, {"reason": reason})

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._token.encode())


def with_token(link: str, token: str) -> str:
    """Return a link to the dashboard that opens the door."""
    return f"{link}{'&' if urlsplit(link).query else '?'}{_PARAMETER}={token}"


def is_loopback_name(host: str) -> bool:
    """Whether a host is this machine by its loopback interface, whatever a resolver says."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _from_another_page(request: HTTPServerRequest) -> bool:
    origin = request.headers.get("Origin") or request.headers.get("Sec-WebSocket-Origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


class _Refusal(web.RequestHandler):
    def initialize(self, reason: str) -> None:
        self._reason_given = reason

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"403: {self._reason_given}\n")


class _Welcome(web.RequestHandler):
    def initialize(self, cookie: str, token: str) -> None:
        self._cookie, self._token = cookie, token

    def get(self) -> None:
        """Keep the token in a cookie, and take it out of the address."""
        self.set_cookie(self._cookie, self._token, httponly=True, samesite="Lax")
        self.set_header("Referrer-Policy", "no-referrer")
        self.redirect(f"./{self.request.path.rpartition('/')[2]}")
