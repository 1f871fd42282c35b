"""Who may ask, how much and how often; and what every answer tells browsers.

Without a token the server listens on this machine alone, and answers only to this machine's names: a page from elsewhere whose
name is made to point here (DNS rebinding) is sent away. With a token everybody must show it: in the header ``authorization:
Bearer``, or in a cookie that the address with ``?token=`` sets.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelstore.cli.web.endpoints import refusal
from labelstore.cli.web.parameters import RequestError

COOKIE = "labelstore_token"
MOST_BODY = 2**22
_MOST_TAKEN = 2**26
_MOST_CLIENTS = 4096
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Rules:
    """What is let through.

    Parameters
    ----------
    token
        What everybody must show; None: nothing, and only requests under ``hosts`` are answered.
    hosts
        Names of this server, in lower case, without ports.
    rate, burst
        Requests a second and client, and how many at once.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1")
    rate: float = 500.0
    burst: float = 1500.0


class Guard:
    """Middleware around everything else."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store" if scope["path"].startswith("/api/") else "no-cache")
            await send(message)

        try:
            answer = self._answer_at_once(scope)
            body = None if answer else await _read(receive)
        except RequestError as error:
            answer = refusal(error)
            if error.status == 429:
                answer.headers["retry-after"] = "1"
            if error.status == 401:
                answer.headers["www-authenticate"] = "Bearer"
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, _replay(body or b"", receive), send_guarded)

    def _answer_at_once(self, scope: Scope) -> Response | None:
        """Return the answer to who shows the token in the address; refuse whom nothing else is to be answered."""
        headers = Headers(scope=scope)
        self._count(scope)
        if self._rules.token is None:
            name = _host_name(headers.get("host", ""))
            if name not in self._rules.hosts:
                raise RequestError(421, f"host: expected one of {', '.join(self._rules.hosts)}, got {name[:100]!r}")
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = dict(query).get("token")
        if shown is not None and not scope["path"].startswith("/api/"):
            if not self._fits(shown):
                raise RequestError(401, "the token in the address is not this server's")
            return _with_cookie(scope["path"], [(name, value) for name, value in query if name != "token"], shown)
        if not (self._fits(_bearer(headers)) or self._fits(_cookie(headers))):
            raise RequestError(401, "expected this server's token: as 'authorization: Bearer TOKEN', or once as ?token=TOKEN")
        return None

    def _fits(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(errors="replace"), (self._rules.token or "").encode())

    def _count(self, scope: Scope) -> None:
        """Take one request from what a client has left, which fills up again with time."""
        client = (scope.get("client") or ("", 0))[0]
        now = time.monotonic()
        left, last = self._buckets.pop(client, (self._rules.burst, now))
        left = min(left + (now - last) * self._rules.rate, self._rules.burst)
        self._buckets[client] = (max(left - 1, 0.0), now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise RequestError(429, f"expected at most {self._rules.rate:g} requests a second")


async def _read(receive: Receive) -> bytes:
    """Return the body. What is too long is not kept, but taken for a while: who is still sending does not hear an answer."""
    parts, size, more = [], 0, True
    while more and size <= _MOST_TAKEN:
        message = await receive()
        if message["type"] != "http.request":
            break
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= MOST_BODY:
            parts.append(part)
    if size > MOST_BODY:
        raise RequestError(413, f"body: expected at most {MOST_BODY} bytes, got more")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return what hands on a body that has been read."""
    waiting = [body]

    async def receive_again() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return receive_again


def _with_cookie(path: str, query: list[tuple[str, str]], token: str) -> Response:
    """Go on to the same address without the token, which the browser keeps for itself."""
    target = "/" + path.lstrip("/\\")  # '//elsewhere' would lead there
    response = RedirectResponse(f"{target}?{urlencode(query)}" if query else target, 303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
    return response


def _host_name(host: str) -> str:
    """A host's name without its port, in lower case; IPv6 addresses without brackets."""
    if host.startswith("["):
        return host[1:].split("]")[0].lower()
    return host.rsplit(":", 1)[0].lower() if host.count(":") == 1 else host.lower()


def _bearer(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
