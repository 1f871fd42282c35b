"""Who is let in, how much is taken, and what browsers are told."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from web_client import Client, client_of

from labelstore.cli.web.guard import MOST_BODY, Rules, is_loopback
from labelstore.cli.web.serve import TOKEN_VARIABLE, rules_for, serving
from labelstore.cli.web.site import Site
from labelstore.errors import OptionError

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def locked(picture_store):
    """A server that wants a token."""
    site = Site(str(picture_store))
    with serving(site, Rules(token=TOKEN)) as url:
        yield client_of(url, site)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")),
    ],
)
def test_only_this_machines_addresses_may_do_without_a_token(host, loopback):
    assert is_loopback(host) == loopback
    assert rules_for(host).token is not None
    if loopback:
        assert rules_for(host, token=False).token is None
    else:
        with pytest.raises(OptionError, match=f"--host {host} is reached from others"):
            rules_for(host, token=False)


def test_tokens_are_long_and_never_the_same():
    one, other = (rules_for("127.0.0.1").token for _ in range(2))
    assert one != other
    assert len(one) >= 32


def test_the_environment_may_choose_the_token(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    assert rules_for("0.0.0.0").token == "0123456789abcdef"
    for wrong in ("short", "with a space in it", "ü" * 16):
        monkeypatch.setenv(TOKEN_VARIABLE, wrong)
        with pytest.raises(OptionError, match=f"{TOKEN_VARIABLE}: expected 16 or more"):
            rules_for("127.0.0.1")


@pytest.mark.parametrize("path", ["/", "/api/info", "/assets/main.js", "/api/openapi.json", "/nothing"])
def test_nothing_is_answered_without_the_token(locked, path):
    assert locked.ask(path).status == 401
    assert locked.ask(path, authorization="Bearer wrong").status == 401
    assert locked.ask(path, authorization="Basic " + TOKEN).status == 401
    assert locked.ask(path, cookie=f"{cookie_of(locked)}=wrong").status == 401
    assert locked.ask(f"{path}?token=").status == locked.ask(f"{path}?token=wrong").status == 401
    assert locked.ask(path).headers["www-authenticate"] == "Bearer"


def cookie_of(client: Client) -> str:
    """The cookie's name."""
    return f"labelstore_token_{urlsplit(client.url).port}"


def test_a_token_lets_in_from_anywhere(locked):
    assert locked.ask("/api/healthz", authorization=f"Bearer {TOKEN}", host="photos.example.org").status == 200
    assert locked.ask("/api/healthz", cookie=f"{cookie_of(locked)}={TOKEN}").status == 200
    assert locked.ask("/api/healthz", cookie=f"labelstore_token_9999={TOKEN}", host="localhost:9999").status == 200  # a tunnel
    assert locked.ask("/api/healthz", cookie=f"labelstore_token_1={TOKEN}").status == 401  # another server's
    assert locked.ask(f"/api/ids?limit=2&token={TOKEN}").json["total"] == 21
    assert locked.ask(f"/api/ids?limit=x&token={TOKEN}").status == 422


def test_the_address_with_the_token_sets_a_cookie_and_leads_to_the_one_without(locked):
    answer = locked.ask(f"/image?id=blue%2F0.png&token={TOKEN}")
    assert answer.status == 200
    assert b'content="0; url=/image?id=blue%2F0.png"' in answer.body
    assert TOKEN.encode() not in answer.body
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{cookie_of(locked)}={TOKEN};")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert b'url=/elsewhere.org"' in locked.ask(f"//elsewhere.org?token={TOKEN}").body
    assert b'url=/?q=%22%3E%3Cscript"' in locked.ask(f"/?q=%22%3E%3Cscript&token={TOKEN}").body


def test_a_browser_without_the_token_is_told_in_words(locked):
    answer = locked.ask("/", accept="text/html,*/*")
    assert (answer.status, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert b"asks for its token" in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8765", "127.0.0.2:8765", "LOCALHOST:1", "[::1]:80"])
def test_this_machines_names_are_answered(viewed, host):
    assert viewed.ask("/api/healthz", host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost@evil.example"])
def test_other_names_that_lead_here_are_not(viewed, host):
    answer = viewed.ask("/api/healthz", host=host)
    assert (answer.status, "expected one of" in answer.message) == (421, True)


def test_browsers_are_told_to_run_only_what_is_here(viewed):
    for path in ("/", "/api/info", "/assets/nothing.js", "/api/ids?limit=x"):
        headers = viewed.ask(path).headers
        rules = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers
    assert viewed.ask("/api/info").headers["cache-control"] == "no-store"


def test_a_body_that_is_too_long_is_refused_announced_or_not(viewed):
    assert viewed.post("pool", b" " * (MOST_BODY + 1)).status == 413
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = viewed.ask("/api/pool", "POST", chunk * (MOST_BODY // 0x10000 + 1) + b"0\r\n\r\n", transfer_encoding="chunked")
    assert chunked.status == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_other_methods_are_not_allowed(viewed, method):
    answer = viewed.ask("/api/info", method)
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]


def test_too_many_requests_are_told_to_wait(picture_store):
    site = Site(str(picture_store))
    with serving(site, Rules(rate=0.001, burst=5)) as url:
        client = Client(url, site, {})
        answers = [client.ask("/api/healthz") for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 3
    assert answers[-1].headers["retry-after"] == "1"


def test_requests_without_the_token_use_up_nothing_of_those_with_it(picture_store):
    site = Site(str(picture_store))
    with serving(site, Rules(token=TOKEN, rate=0.001, burst=5)) as url:
        client = Client(url, site, {})
        assert [client.ask("/api/healthz").status for _ in range(7)] == [401] * 5 + [429] * 2
        assert client.ask("/api/healthz", authorization=f"Bearer {TOKEN}").status == 200
