"""JSON Schema, as the description of the API needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

INTEGER, NUMBER, STRING, BOOLEAN = ({"type": kind} for kind in ("integer", "number", "string", "boolean"))
OBJECT: Schema = {"type": "object"}
OBJECT_OR_NONE: Schema = {"type": ["object", "null"]}


def an_object(always: Mapping[str, Schema], sometimes: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object, by what it has always and what it may have."""
    found: Schema = {"type": "object", "properties": {**always, **(sometimes or {})}}
    return found | ({"required": list(always)} if always else {})


def list_of(items: Schema, **bounds: int) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **bounds}


CLASS_SHARE = an_object({"class": INTEGER, "name": STRING, "probability": NUMBER}, {"id": STRING})
"""A class with its name and its share of a soft label."""
