"""`--open`: the page in the user's browser, without the token in any process's arguments, which all users can list."""

from __future__ import annotations

import contextlib
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from html import escape
from pathlib import Path

from labelstore.errors import OptionError
from labelstore.pipelines.user_cache import cache_folder

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>labelstore view</title><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}"></head>
<body><p><a href="{url}">To the viewer</a></p></body></html>
"""


@contextlib.contextmanager
def opening_page(url: str) -> Iterator[Path]:
    """Keep a page that leads to an address, for this user alone (mode 0600), while the block runs; yields its path."""
    folder = cache_folder("view")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(".html", "open-", folder)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(_PAGE.format(url=escape(url)))
    except OSError as error:
        raise OptionError(
            f"--open: a page cannot be written in {folder}: {error.strerror}; open the address yourself"
        ) from error
    try:
        yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def open_browser(page: Path) -> bool:
    """Show a page in the user's browser; whether there is one."""
    return webbrowser.open(page.as_uri())
