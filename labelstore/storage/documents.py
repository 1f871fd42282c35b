"""Somebody's JSON, parsed within bounds."""

from __future__ import annotations

import json
from typing import Any

from labelstore.errors import FormatError

MOST_BYTES = 1 << 26
"""More than the names of a million classes take."""
_MOST_CONTAINERS = 1 << 20
_DEEPEST = 64


def parse_json(data: bytes, where: str) -> Any:
    """Parse a JSON text in UTF-8.

    Raises
    ------
    FormatError
        It is none, holds texts that are no Unicode, is nested more than 64 deep, or would take gigabytes.
    """
    if len(data) > MOST_BYTES or data.count(b"[") + data.count(b"{") > _MOST_CONTAINERS:
        raise FormatError(f"{where}: expected JSON of at most {MOST_BYTES:,} bytes, {_MOST_CONTAINERS:,} lists and objects")
    try:
        found = json.loads(data.decode())
        if b"\\ud" in data.lower():  # half of a character beyond 16 bits: cannot be printed
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected JSON, found: {error}") from error
    if _is_deeper(found, _DEEPEST):
        raise FormatError(f"{where}: expected JSON, nested {_DEEPEST} deep at most")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    below = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(entry, levels - 1) for entry in below)
