"""Bytes of files and of parts of them: local, or behind any URL that fsspec opens, with a time limit and a few tries."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from labelstore.credentials import without_credentials
from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources.spec import is_url
from labelstore.pipelines.sources.webget import RefusedError, get, is_web
from labelstore.regular_file import open_regular

SECONDS, TRIES, PAUSE = 30.0, 3, 0.5
"""How long an answer may take, how often it is asked for, and the first pause between."""
LISTING_SECONDS = 3600.0
"""How long it may take to list a folder: a million objects are a thousand answers."""
MOST_BYTES = 2**28
"""A larger file is no image: it would be read into memory."""
_BLOCK = 2**20
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
T = TypeVar("T")


def read_all(location: str, most: int = MOST_BYTES) -> bytes:
    """Return a file's bytes, at most so many.

    Raises
    ------
    OSError
        It cannot be read, is no file, or too large; ``strerror`` says why.
    """
    if is_url(location):
        return with_retries(location, lambda system, path: _cat(system, path, None, most))
    with open_regular(location) as file:
        _require_few(os.fstat(file.fileno()).st_size, most)
        return file.read()


def read_part(location: str, start: int, length: int) -> bytes:
    """Return some bytes of a file; likewise."""
    _require_few(length, MOST_BYTES)
    if is_url(location):
        span = start, start + length
        data = with_retries(location, lambda system, path: _cat(system, path, span, length)) if length else b""
    else:
        with open_regular(location) as file:
            data = os.pread(file.fileno(), length, start)
    if len(data) != length:
        raise OSError(0, f"{without_credentials(location)} is cut short: expected {length} bytes at {start}, got {len(data)}")
    return data


def open_file(location: str, block: int = _BLOCK) -> BinaryIO:
    """Open a file to be read here and there; behind a URL at least so many bytes at once, each time with its limit and tries.

    Raises
    ------
    OSError
        As `read_all`; reading raises it too.
    """
    return io.BufferedReader(_Remote(location), block) if is_url(location) else open_regular(location)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    Raises
    ------
    MissingExtraError
        The package for it is not installed.
    ImagesError
        No such protocol.
    """
    from fsspec.core import url_to_fs

    protocol = url.split("://")[0]
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"pip install 'labelstore[{extra}]'" if extra else "pip install the package that it names"
        raise MissingExtraError(f"{url}: {hint} ({error})") from error
    except ValueError as error:
        raise ImagesError(f"{url}: {error}") from error
    return system, path


def with_retries(url: str, ask: Callable[[Any, str], T]) -> T:
    """Return what ``ask(file system, path)`` returns; again after a pause where that may help.

    Raises
    ------
    OSError
        ``strerror`` says why, and how often it was tried.
    """
    system, path = filesystem(url)
    for attempt in range(TRIES):
        try:
            return ask(system, path)
        except (FileNotFoundError, PermissionError, RefusedError) as error:
            raise type(error)(0, _words(error)) from error
        except Exception as error:  # time is up, the connection is lost, or what clients of foreign protocols raise
            failure = error
            if not _may_pass(error):
                break
        if attempt + 1 < TRIES:
            time.sleep(PAUSE * 2**attempt)
    times = f"tried {attempt + 1} times" if attempt else "tried once"
    raise OSError(0, f"{_words(failure)} ({times})") from failure


def call(system: Any, name: str, *arguments: Any, seconds: float | None = None) -> Any:
    """Call a method of a file system; no longer than so many seconds (`SECONDS`) where it can be left."""
    if not getattr(system, "async_impl", False):
        return getattr(system, name)(*arguments)
    from fsspec.asyn import sync

    return sync(system.loop, getattr(system, f"_{name}"), *arguments, timeout=seconds or SECONDS)


def size_of(url: str) -> int:
    """Return the length of what is behind a URL.

    Raises
    ------
    OSError
        It cannot be had, or the server does not say.
    """
    size = with_retries(url, lambda system, path: call(system, "info", path)).get("size")
    if size is None:
        raise OSError(0, "the server does not say how long it is; get the file, and name it here")
    return int(size)


class _Remote(io.RawIOBase):
    """A file behind a URL, for `io.BufferedReader`. For one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._size = size_of(url)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._size - self._at, 16 * _BLOCK), 0)
        buffer[:count] = read_part(self._url, self._at, count)
        self._at += count
        return count


def _require_few(size: int, most: int) -> None:
    if size > most:
        raise OSError(0, f"{size} bytes are too many, expected at most {most}")


def _cat(system: Any, path: str, span: tuple[int, int] | None, most: int) -> bytes:
    if is_web(system):
        from fsspec.asyn import sync

        return bytes(sync(system.loop, get, system, path, span, most, timeout=SECONDS))
    start, end = span or (None, None)
    data: bytes = call(system, "cat_file", path, start, end)
    return data


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help: a server that is out of order, not one that says no."""
    status = getattr(error, "status", 0) or 0
    return not 400 <= status < 500 or status in (408, 429)


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "not found (404)" if "://" in str(error) else "not found"
    if isinstance(error, asyncio.TimeoutError) or "Timeout" in type(error).__name__:
        return f"no answer in {SECONDS:g} s"
    if "Payload" in type(error).__name__:  # aiohttp's, where fewer bytes come than were announced
        return "the answer is cut short"
    status, text = getattr(error, "status", None), getattr(error, "message", None)
    if status:
        return f"the server answers {status} {text or ''}".strip()
    lines = without_credentials(getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
