"""Requests that nobody sends in good faith, by number: the same for the same seed."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from pictures import paint

SECRET = b"what must never be served"
SECRET_COLOUR = (255, 0, 255)
STEPS = "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..;/", "./", "//"
TARGETS = "secret.txt", "secret/magenta.png", "etc/passwd", "proc/self/environ", "zarr.json", "labels.zarr/zarr.json"
ENDPOINTS = "photo", "cells", "maps", "crops", "ids", "classes", "survey", "failures", "info", "metrics", "nothing", ""
METHODS = "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PROPFIND", "get", "G\0T"
ODD = (
    "", "0", "-1", "1e400", "NaN", "null", "true", "[]", "{}", "%00", "%", "%zz", "%ff%fe", "\x7f", "9" * 400, "a" * 5000, "é",
    "'; DROP TABLE", "<script>alert(1)</script>", "${jndi:ldap://x}", "{{7*7}}", "%0d%0aX-Injected:%20yes", "\u202e", "..",
)  # fmt: skip


def lay_out(root: Path) -> Path:
    """Make a folder of images with ways out of it, beside secrets; return the folder."""
    (root / "secret").mkdir(parents=True)
    (root / "secret.txt").write_bytes(SECRET)
    paint(root / "secret" / "magenta.png", "magenta")
    images = root / "images"
    for colour in ("red", "green", "blue"):
        for number in range(3):
            paint(images / colour / f"{number}.png", colour)
    (images / "red" / "out.png").symlink_to(root / "secret" / "magenta.png")
    (images / "away").symlink_to(root / "secret")
    return images


def requests(seed: int, count: int, ids: Sequence[str], images: Path) -> list[bytes]:
    """Return requests as bytes to be sent; ``ids`` are images of the store, those behind links included."""
    rng = random.Random(seed)
    kinds: tuple[Callable[[random.Random, Sequence[str], Path], bytes], ...] = (
        _path,
        _query,
        _odd,
        _body,
        _head,
        _junk,
        _linked,
    )
    return [rng.choice(kinds)(rng, ids, images) for _ in range(count)]


def send(url: str, data: bytes, patience: float = 1.0) -> bytes:
    """Send bytes to a server, and return all that it says until it hangs up or has been silent for some seconds."""
    place = urlsplit(url)
    found = bytearray()
    with (
        socket.create_connection((place.hostname, place.port), timeout=10) as connection,
        suppress(ConnectionError, TimeoutError),
    ):
        connection.sendall(data)
        connection.settimeout(patience)
        while part := connection.recv(65536):
            found += part
    return bytes(found)


def send_all(url: str, wanted: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Send requests, some at a time; yield each with what was said to it."""
    with ThreadPoolExecutor(16) as threads:
        yield from zip(wanted, threads.map(partial(send, url), wanted), strict=True)


def _request(target: str, method: str = "GET", head: str = "Host: 127.0.0.1\r\n", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\n{head}{length}Connection: close\r\n\r\n".encode("utf-8", "surrogateescape") + body


def _climbing(rng: random.Random, images: Path) -> str:
    target = rng.choice((*TARGETS, f"{images.parent}/secret.txt", f"{images.parent}/secret/magenta.png"))
    return rng.choice(("", "/", "red/", "away/", "images/")) + rng.choice(STEPS) * rng.randint(0, 8) + target


def _path(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    start = rng.choice(("/", "/assets/", "/api/", "/image/", "http://127.0.0.1/", "//", "/assets/../"))
    return _request(start + _climbing(rng, images).replace(" ", "%20"), rng.choice(METHODS[:3]))


def _query(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    image_id = _climbing(rng, images)
    shown = image_id if rng.random() < 0.5 else quote(image_id, safe="")
    return _request(f"/api/{rng.choice(ENDPOINTS[:4])}?id={shown}".replace(" ", "%20").replace("\\", "%5c"))


def _linked(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    """Images of the store itself, those that lie behind a link out of the root among them."""
    side = rng.choice(("256", "1280", "1", "99999999"))
    return _request(f"/api/photo?id={quote(rng.choice(ids))}&side={side}")


def _odd(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    names = rng.choices(
        ("id", "row", "q", "class", "share", "offset", "limit", "seed", "aspect", "side", "order", "x", ""), k=3
    )
    query = "&".join(f"{name}={rng.choice(ODD)}" for name in names).replace(" ", "%20")
    return _request(f"/api/{rng.choice(ENDPOINTS)}?{query}", rng.choice(METHODS))


def _body(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    values = [
        None,
        True,
        -1,
        10**30,
        1e308,
        "x",
        "\ud800",
        [],
        {},
        [[]],
        [ids[0]],
        [_climbing(rng, images)],
        [0],
        [2**63],
        [1.5],
    ]
    values += [[[0, 0, 1, 1]], [[0, 0, 0, 0]], [["0", 0, 1, 1]], [[1e308, -1e308, 1, 1]], [[0] * 3], [0] * 5000]
    body: object = {name: rng.choice(values) for name in rng.sample(("ids", "rows", "boxes", "top", "__proto__", ""), 2)}
    data = json.dumps(rng.choice((body, body, values))).encode()
    if rng.random() < 0.2:
        data = rng.choice((b"{", b"\xff\xfe", b"[" * 50_000, b'{"ids": NaN}', b"\0" * 100, data[: len(data) // 2], data * 50))
    return _request(
        f"/api/{rng.choice(('pool', 'maps'))}", "POST", "Host: localhost\r\nContent-Type: application/json\r\n", data
    )


def _head(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    lines = rng.choices(
        (
            "Host: evil.example", "Host: 127.0.0.1", "Host:", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: evil.example",
            "Cookie: labelstore_token=\x01;;=", "Authorization: Bearer", "If-None-Match: " + '"x",' * 200, "Range: bytes=0-",
            "Transfer-Encoding: chunked", "Content-Length: 99999999999999999999", "Content-Length: -1", "Expect: 100-continue",
            "Accept-Encoding: " + "gzip," * 300, "X: " + "a" * 9000, "Upgrade: websocket\r\nConnection: Upgrade", "\0: x",
        ),
        k=3,
    )  # fmt: skip
    return _request(rng.choice(("/", "/api/info", "/api/pool")), rng.choice(METHODS), "".join(f"{line}\r\n" for line in lines))


def _junk(rng: random.Random, ids: Sequence[str], images: Path) -> bytes:
    return rng.choice(
        (
            rng.randbytes(rng.randint(1, 400)),
            b"GET /\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET " + b"/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /api/pool HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        )
    )
