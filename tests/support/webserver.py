"""A web server for tests: files of a folder, byte ranges, and answers that go wrong on purpose."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class WebServer(ThreadingHTTPServer):
    """Serves ``root``. What is in a path says what goes wrong with it: ``hang`` is never answered, ``stall`` in its first half
    only; ``flaky`` is answered at the second time; ``cut`` is shorter than announced; ``page`` is a web page; ``whole`` comes
    whole, whatever part was asked for."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: Counter[str] = Counter()
        self.ended = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on purpose."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.server.asked[self.path] += 1
        if "hang" in self.path:
            self.server.ended.wait(60)
            return
        file = self.server.root / unquote(self.path.partition("?")[0].lstrip("/"))
        if "flaky" in self.path and self.server.asked[self.path] == 1:
            self._send(503, b"", with_body)
        elif "secret" in self.path:
            self._send(403, b"", with_body)
        elif "page" in self.path:
            self._send(200, b"<!DOCTYPE html>\n<html><title>Log in</title></html>", with_body)
        elif not file.is_file():
            self._send(404, b"", with_body)
        else:
            self._send_file(file.read_bytes(), with_body)

    def _send_file(self, data: bytes, with_body: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or "whole" in self.path:
            self._send(200, data, with_body)
            return
        start, end = int(span[1]), int(span[2] or len(data) - 1)
        self._send(206, data[start : end + 1], with_body, f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}")

    def _send(self, status: int, data: bytes, with_body: bool, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        broken = "cut" in self.path or "stall" in self.path
        if with_body:
            self.wfile.write(data[: len(data) // 2] if broken else data)
            self.wfile.flush()
        if with_body and "stall" in self.path:
            self.server.ended.wait(60)
        self.close_connection = broken

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at what was asked for, not at lines on stderr."""


@contextmanager
def serve(root: Path) -> Iterator[WebServer]:
    """Run a server in a thread."""
    with WebServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
