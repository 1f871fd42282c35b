"""Bytes of files and of parts of them: local, or behind any URL that fsspec opens, with a time limit and a few tries."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from labelstore.errors import ImagesError, MissingExtraError
from labelstore.pipelines.sources.spec import is_url

SECONDS, TRIES, PAUSE = 30.0, 3, 0.5
"""How long an answer may take, how often it is asked for, and the first pause between."""
MOST_BYTES = 2**28
"""A larger file is no image: it would be read into memory."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
T = TypeVar("T")


def read_all(location: str) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    OSError
        It cannot be read, is no file, or too large; ``strerror`` says why.
    """
    if is_url(location):
        return with_retries(location, lambda system, path: _cat(system, path, None, None))
    with os.fdopen(os.open(location, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would be waited for
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a file")
        if status.st_size > MOST_BYTES:
            raise OSError(0, f"{status.st_size} bytes are too many for an image, expected at most {MOST_BYTES}")
        return file.read()


def read_part(location: str, start: int, length: int) -> bytes:
    """Return some bytes of a file; likewise."""
    if length > MOST_BYTES:
        raise OSError(0, f"{length} bytes are too many for an image, expected at most {MOST_BYTES}")
    if is_url(location):
        data = with_retries(location, lambda system, path: _cat(system, path, start, start + length))
    else:
        with Path(location).open("rb") as file:
            data = os.pread(file.fileno(), length, start)
    if len(data) != length:
        raise OSError(0, f"{location} is cut short: expected {length} bytes at {start}, got {len(data)}")
    return data


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
        except (FileNotFoundError, PermissionError) as error:
            raise type(error)(0, _words(error)) from error
        except (TimeoutError, OSError) as error:
            failure: Exception = error
        except Exception as error:  # what clients of foreign protocols raise
            failure = error
            if not _may_pass(error):
                break
        time.sleep(PAUSE * 2**attempt)
    raise OSError(0, f"{_words(failure)} (tried {attempt + 1} times)") from failure


def call(system: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of a file system; no longer than `SECONDS` where it can be left."""
    if not getattr(system, "async_impl", False):
        return getattr(system, name)(*arguments, **options)
    from fsspec.asyn import sync

    return sync(system.loop, getattr(system, f"_{name}"), *arguments, timeout=SECONDS, **options)


def _cat(system: Any, path: str, start: int | None, end: int | None) -> bytes:
    data: bytes = call(system, "cat_file", path, start=start, end=end)
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
    status, text = getattr(error, "status", None), getattr(error, "message", None)
    if status:
        return f"the server answers {status} {text or ''}".strip()
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
