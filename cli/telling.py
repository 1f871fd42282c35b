"""Lines of text for people, and JSON for programs."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from labelstore.cli.escaping import PeopleConsole, escaped, escaped_json
from labelstore.credentials import without_credentials


def people(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console for people."""
    return PeopleConsole(stderr=stderr, quiet=quiet)


def tell(console: Console, text: str | Text) -> None:
    """Print a line as it is: names in it may look like markup, and a line that is wrapped cannot be searched for."""
    console.print(_line(text) if isinstance(text, str) else text, soft_wrap=True)


def warn(console: Console, text: str) -> None:
    """Print a line as a warning."""
    tell(console, Text.assemble(("Warning:", "yellow"), " ", _line(text)))


def say_json(value: Any, *, ensure_ascii: bool = True) -> None:
    """Print a value as JSON to stdout."""
    click.echo(json_text(value, indent=2, ensure_ascii=ensure_ascii))


def json_text(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """Return a value as JSON that a terminal can be shown."""
    return escaped_json(json.dumps(value, indent=indent, ensure_ascii=ensure_ascii))


def _line(text: str) -> Text:
    return Text(escaped(without_credentials(text)))
