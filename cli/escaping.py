"""Text of stores, images and errors on a terminal: what would steer it, or turn the order of what is read, is shown instead.

All of a command's output passes here: `escape_streams` holds what is printed, tracebacks and warnings too; `PeopleConsole` what
rich draws, whose own colours and moves of the cursor are let through.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of bidirectional text
    "\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e007f]"  # lines and notes of Unicode, tags
)


def escaped(text: str) -> str:
    """Return a text with a terminal's controls as Python writes them: ``\\x1b`` for escape."""
    return _STEERING.sub(_as_python, text)


def escaped_json(text: str) -> str:
    """Return JSON that says the same with such characters as its own escapes."""
    return _STEERING.sub(_as_json, text)


def _as_python(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _as_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


class PeopleConsole(Console):
    """Rich's console for people: of what it draws no text steers the terminal, and nothing is a link."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control is not None or (style is None and text == "\n"):
                yield segment
            else:
                yield Segment(escaped(text), style.update_link() if style is not None and style.link else style)

    @property
    def file(self) -> IO[str]:
        """Where it writes: past `escape_streams`, which would escape rich's own colours."""
        found: IO[str] = super().file
        return found.inner if isinstance(found, _Escaped) else found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


class _Escaped:
    """A stream of text whose writes are escaped; else as the stream within."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def write(self, text: str) -> int:
        self.inner.write(escaped(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.inner.writelines(map(escaped, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def escape_streams() -> None:
    """Escape from now on what is printed to stdout and stderr, up to the traceback that ends the process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Escaped):
            setattr(sys, name, _Escaped(stream))
