"""Connections that say nothing, half of something, or too slowly: real sockets, and what others are answered meanwhile."""

from __future__ import annotations

import http.client
import resource
import socket
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from web_client import Client

from labelstore.cli.web.connections import Limits, client_of
from labelstore.cli.web.guard import Rules
from labelstore.cli.web.serve import rules_for, serving
from labelstore.cli.web.site import Site

TOKEN = "a-token-of-this-test"
SHOWN = {"authorization": f"Bearer {TOKEN}"}
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: "
WHOLE = f"GET /api/healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


@pytest.fixture
def site(picture_store):
    return Site(str(picture_store))


@contextmanager
def limited(site: Site, token: str | None = TOKEN, **limits: float):
    """A server with limits of its own, and a function that connects to it and sends something."""
    with serving(site, Rules(token=token, limits=Limits(**limits))) as url, ExitStack() as stack:
        place = urlsplit(url)

        def connect(data: bytes = b"") -> socket.socket:
            found = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
            found.sendall(data)
            return found

        yield Client(url, site, SHOWN if token else {}), connect


def answered(connection: socket.socket) -> bytes:
    """One answer, head and body."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return str(response.status).encode() + response.read()


def hung_up(connection: socket.socket) -> bool:
    """Whether the server has ended a connection: waits for it to say something."""
    with suppress(ConnectionError):
        return connection.recv(65536) == b""
    return True


@pytest.mark.parametrize("count", [30, 600])
def test_half_sent_requests_leave_room_for_whole_ones(site, count):
    with limited(site, connections=40, a_client=20) as (client, connect):
        halves = [connect(HALF) for _ in range(count)]
        assert client.ask("/api/healthz").status == 200
        assert hung_up(halves[0])  # the one that has waited longest


def test_as_many_as_stopped_the_server_once_do_not(site):
    with limited(site) as (client, connect):
        for _ in range(515):
            connect(HALF)
        assert client.ask("/api/healthz").status == 200


def test_connections_that_have_shown_the_token_are_the_last_to_go(site):
    with limited(site, a_client=4) as (_, connect):
        browser = connect(WHOLE)
        assert answered(browser).startswith(b"200")
        for _ in range(20):
            connect(HALF)
        browser.sendall(WHOLE)
        assert answered(browser).startswith(b"200")


def test_a_head_that_does_not_end_in_time_is_hung_up_on(site):
    with limited(site, head_seconds=0.3) as (client, connect):
        silent, half = connect(), connect(HALF)
        assert hung_up(silent)
        assert hung_up(half)
        kept = connect(WHOLE)
        assert answered(kept).startswith(b"200")
        kept.sendall(HALF)  # the next one of a connection that is kept
        assert hung_up(kept)
        assert client.ask("/api/healthz").status == 200


def test_a_head_without_an_end_is_not_kept(site):
    with limited(site) as (client, connect):
        endless = connect(HALF)
        with pytest.raises(ConnectionError):
            endless.sendall(b"x" * 2**26)
        assert client.ask("/api/healthz").status == 200


def test_a_body_that_does_not_come_in_time_is_refused(site):
    head = f"POST /api/pool HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with limited(site, body_seconds=0.3) as (client, connect):
        slow = connect(head.encode() + b"{")
        assert slow.recv(65536).startswith(b"HTTP/1.1 408")
        assert client.ask("/api/healthz").status == 200


def test_without_the_token_no_body_is_waited_for(site):
    with limited(site) as (_, connect):
        slow = connect(b"POST /api/pool HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(65536).startswith(b"HTTP/1.1 401")


def test_an_answer_that_is_being_taken_is_not_cut_off(site):
    rows = [index % 21 for index in range(4096)]
    body = {"rows": rows, "boxes": [[0, 0, 1, 1]] * len(rows)}
    with limited(site, head_seconds=0.3) as (client, _):
        answer = client.post("pool", body, format="raw")
        assert len(answer.body) == 4096 * site.info.num_classes * 4


def test_busy_connections_are_not_hung_up_on_for_new_ones(site):
    head = b"POST /api/pool HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with limited(site, token=None, a_client=2, head_seconds=30) as (_, connect):
        busy = [connect(head) for _ in range(2)]
        for one in busy:
            assert b"100 Continue" in one.recv(65536)
        assert hung_up(connect(WHOLE))
        for one in busy:
            one.sendall(b"{}")
            assert answered(one).startswith(b"422")


@pytest.mark.parametrize(
    ("hosts", "same"),
    [
        (("10.0.0.1", "10.0.0.2"), False),
        (("2001:db8::1", "2001:db8::ffff"), True),
        (("2001:db8::1", "2001:db8:0:1::1"), False),
        (("::ffff:10.0.0.1", "10.0.0.1"), True),
        (("fe80::1%eth0", "fe80::2"), True),
    ],
)
def test_a_network_of_ipv6_is_one_client(hosts, same):
    one, other = (client_of({"client": (host, 1)}) for host in hosts)
    assert (one == other) == same


def test_half_of_the_files_that_may_be_open_are_left_to_the_store(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert rules_for("127.0.0.1").limits == Limits(connections=50, a_client=25)
