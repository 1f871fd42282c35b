"""Who may ask, how much and how often; and what every answer tells browsers.

Every request must show the token: in the header ``authorization: Bearer``, as ``?token=``, or in the cookie that a page's
address with ``?token=`` sets. Without a token (``--no-token``) only this machine's own names are answered: a page from
elsewhere whose name is made to point here (DNS rebinding) is sent away.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from html import escape
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelstore.cli.web.connections import Limits, client_of, trust
from labelstore.cli.web.endpoints import refusal
from labelstore.cli.web.parameters import RequestError

COOKIE = "labelstore_token_"
"""Before the port: servers on several ports of one machine share a browser's cookies."""
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
        What every request must show; None: nothing, and only requests under this machine's own names are answered.
    rate, burst
        Requests a second and client, and how many at once.
    limits
        Connections, and how long they may take.
    """

    token: str | None = None
    rate: float = 500.0
    burst: float = 1500.0
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
            body = None if answer else await _read(receive, self._rules.limits.body_seconds)
        except RequestError as error:
            answer = _refused(scope, error)
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        await self._app(scope, _replay(body or b"", receive), send_guarded)

    def _answer_at_once(self, scope: Scope) -> Response | None:
        """Return the answer to a page's address that holds the token; refuse what may not be answered."""
        headers, query = Headers(scope=scope), parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        trusted = self._rules.token is None or any(map(self._fits, _shown_tokens(headers, query)))
        self._count(client_of(scope), trusted)
        if self._rules.token is None:
            name = _host_name(headers.get("host", ""))
            if not is_loopback(name):
                raise RequestError(421, f"host: expected one of localhost, 127.0.0.1, [::1], got {name[:100]!r}")
        elif not trusted:
            raise RequestError(401, "expected this server's token: 'authorization: Bearer TOKEN', or ?token=TOKEN")
        trust(scope)
        without = [(name, value) for name, value in query if name != "token"]
        if self._rules.token is None or len(without) == len(query):
            return None
        if not scope["path"].startswith("/api/"):
            return _with_cookie(scope["path"], without, self._rules.token, _cookie_name(headers))
        scope["query_string"] = urlencode(without).encode()
        return None

    def _fits(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(errors="replace"), (self._rules.token or "").encode())

    def _count(self, client: str, trusted: bool) -> None:
        """Take one request from what a client has left, which fills up again with time.

        Clients with the token have an allowance of their own: requests without it, of another user of the same machine say,
        use none of it up.
        """
        key, now = f"{client} {trusted}", time.monotonic()
        left, last = self._buckets.pop(key, (self._rules.burst, now))
        left = min(left + (now - last) * self._rules.rate, self._rules.burst)
        self._buckets[key] = (max(left - 1, 0.0), now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise RequestError(429, f"expected at most {self._rules.rate:g} requests a second")


async def _read(receive: Receive, seconds: float) -> bytes:
    """Return the body, which must come within some seconds."""
    try:
        with anyio.fail_after(seconds):
            return await _read_all(receive)
    except TimeoutError as error:
        raise RequestError(408, f"body: expected all of it within {seconds:g} s") from error


async def _read_all(receive: Receive) -> bytes:
    """Return the body. A longer one is not kept, but taken for a while: a client that still sends hears no answer."""
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


def _refused(scope: Scope, error: RequestError) -> Response:
    """Return what is said of a request that is not let through; in words where a browser asks for a page without the token."""
    answer = refusal(error)
    if error.status == 401 and not scope["path"].startswith("/api/") and "text/html" in Headers(scope=scope).get("accept", ""):
        answer = HTMLResponse(_page("This viewer asks for its token: open the address that labelstore view has printed."), 401)
    more = {429: ("retry-after", "1"), 401: ("www-authenticate", "Bearer"), 408: ("connection", "close")}.get(error.status)
    if more:
        answer.headers[more[0]] = more[1]
    return answer


def _with_cookie(path: str, query: list[tuple[str, str]], token: str, cookie: str) -> Response:
    """Go on to the same address without the token, which the browser keeps for itself.

    A page that goes on, in place of a redirect: after a link from elsewhere (or the file that ``--open`` shows) browsers send
    no SameSite=Strict cookie along a chain of redirects.
    """
    target = "/" + path.lstrip("/\\")  # '//elsewhere' would lead there
    target = f"{target}?{urlencode(query)}" if query else target
    response = HTMLResponse(_page("Opening.", target))
    response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/")
    return response


def _page(words: str, target: str = "") -> str:
    onward = f'<meta http-equiv="refresh" content="0; url={escape(target)}">' if target else ""
    head = f'<meta charset="utf-8"><title>labelstore</title>{onward}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><p>{escape(words)}</p></body></html>'


def _host_name(host: str) -> str:
    """A host's name without its port, in lower case; IPv6 addresses without brackets."""
    if host.startswith("["):
        return host[1:].split("]")[0].lower()
    return host.rsplit(":", 1)[0].lower() if host.count(":") == 1 else host.lower()


def _shown_tokens(headers: Headers, query: list[tuple[str, str]]) -> list[str]:
    """Return all that a request shows as the token."""
    return [_bearer(headers), _cookie(headers), *(value for name, value in query if name == "token")]


def _bearer(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _cookie_name(headers: Headers) -> str:
    """The cookie's name, by the port that the browser knows (of a tunnel, say)."""
    port = headers.get("host", "").rpartition(":")[2]
    return COOKIE + (port if port.isascii() and port.isdigit() else "80")


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers))
    except CookieError:
        return ""
    return found.value if found else ""
