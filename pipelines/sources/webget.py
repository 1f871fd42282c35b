"""One answer of a web server, bounded: fsspec's `cat_file` reads whatever comes, and takes a whole file for a part of it."""

from __future__ import annotations

from typing import Any


class RefusedError(OSError):
    """What will not be had by asking again."""


def is_web(system: Any) -> bool:
    """Whether a file system is fsspec's for http:// and https://."""
    return isinstance(system.protocol, tuple) and "http" in system.protocol


async def get(system: Any, url: str, span: tuple[int, int] | None, most: int) -> bytes:
    """Return a file, or the bytes from ``span[0]`` to before ``span[1]``.

    Raises
    ------
    OSError
        It is not there, more than ``most`` bytes come, or a part was asked for and the server sends no parts. Whatever
        aiohttp raises where the connection or the server fails.
    """
    options = dict(system.kwargs)
    if span is not None:
        options["headers"] = {**options.get("headers", {}), "Range": f"bytes={span[0]}-{span[1] - 1}"}
    session = await system.set_session()
    async with session.get(system.encode_url(url), **options) as answer:
        if answer.status == 404:
            raise FileNotFoundError(url)
        answer.raise_for_status()
        if span is not None and answer.status != 206:
            raise RefusedError(0, "the server sends whole files only, no parts of them; get the file, and name it here")
        pieces, size = [], 0
        async for piece in answer.content.iter_any():
            size += len(piece)
            if size > most:
                raise RefusedError(0, f"more bytes than the {most} that are expected at most")
            pieces.append(piece)
    return b"".join(pieces)
