"""Who is let in, how much is taken, and what browsers are told."""

from __future__ import annotations

import pytest
from web_client import Client, client_of

from labelstore.cli.web.guard import MOST_BODY, Rules
from labelstore.cli.web.serve import is_loopback, rules_for, serving
from labelstore.cli.web.site import Site

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
def test_only_this_machines_addresses_need_no_token(host, loopback):
    assert is_loopback(host) == loopback
    assert (rules_for(host).token is None) == loopback


def test_tokens_are_long_and_never_the_same():
    one, other = (rules_for("0.0.0.0").token for _ in range(2))
    assert one != other
    assert len(one) >= 32


@pytest.mark.parametrize("path", ["/", "/api/info", "/assets/main.js", "/api/openapi.json", "/nothing"])
def test_nothing_is_answered_without_the_token(locked, path):
    assert locked.ask(path).status == 401
    assert locked.ask(path, authorization="Bearer wrong").status == 401
    assert locked.ask(path, authorization="Basic " + TOKEN).status == 401
    assert locked.ask(path, cookie="labelstore_token=wrong").status == 401
    assert locked.ask(path).headers["www-authenticate"] == "Bearer"


def test_a_token_lets_in_from_anywhere(locked):
    assert locked.ask("/api/healthz", authorization=f"Bearer {TOKEN}", host="photos.example.org").status == 200
    assert locked.ask("/api/healthz", cookie=f"labelstore_token={TOKEN}").status == 200


def test_the_address_with_the_token_sets_a_cookie_and_leads_to_the_one_without(locked):
    answer = locked.ask(f"/image?id=blue%2F0.png&token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/image?id=blue%2F0.png")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert locked.ask(f"//elsewhere.org?token={TOKEN}").headers["location"].startswith("/elsewhere")
    assert locked.ask("/?token=wrong").status == 401
    assert locked.ask("/?token=").status == 401
    assert locked.ask(f"/api/info?token={TOKEN}").status == 401  # it would stay in logs


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8765", "LOCALHOST:1", "[::1]:80"])
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
