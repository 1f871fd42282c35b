"""Lines of text for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def tell(console: Console, text: str | Text) -> None:
    """Print a line as it is: names in it may look like markup, and a line that is wrapped cannot be searched for."""
    console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a line as a warning."""
    tell(console, Text.assemble(("Warning:", "yellow"), " ", text))
