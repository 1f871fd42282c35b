"""A line to a server that takes its time: a proxy that delays each way by half of a round trip, and counts requests."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"(?:^|\r\n)(?:GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.1\r\n")


class SlowLine:
    """The proxy. ``address`` is to be used instead of the server's.

    Bytes that follow each other are delayed together, not one after the other, as a long wire does it.
    """

    def __init__(self, server: str, seconds: float) -> None:
        parts = urlsplit(server)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = parts.hostname, parts.port
        self._delay = seconds / 2
        self._started, self._ended = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._writers: list[asyncio.StreamWriter] = []
        self.requests = 0
        self.address = ""

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listening = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._ended.wait()
        listening.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        self._writers += writer, far_writer
        with suppress(asyncio.CancelledError):  # the line is taken down
            await asyncio.gather(self._carry(reader, far_writer, counted=True), self._carry(far_reader, writer, counted=False))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                when, data = await under_way.get()
                await asyncio.sleep(max(when - self._loop.time(), 0))
                if not data:
                    break
                writer.write(data)
                await writer.drain()

        arriving = asyncio.create_task(arrive())
        with suppress(OSError):
            while data := await reader.read(1 << 18):
                self.requests += len(_REQUEST.findall(data)) if counted else 0
                under_way.put_nowait((self._loop.time() + self._delay, data))
        under_way.put_nowait((self._loop.time() + self._delay, b""))
        with suppress(OSError):
            await arriving
        writer.close()


@contextmanager
def slow_line(server: str, seconds: float) -> Iterator[SlowLine]:
    """Open a line; it is gone afterwards."""
    line = SlowLine(server, seconds)
    line.start()
    try:
        yield line
    finally:
        line.stop()
