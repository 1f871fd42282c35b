"""What an endpoint takes: declared once, for the check of a request and for the OpenAPI description."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelstore.errors import LabelStoreError

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class RequestError(LabelStoreError):
    """A request that cannot be answered: an HTTP status, and what was expected and got."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Parameter:
    """A parameter in an address.

    Parameters
    ----------
    kind
        ``string``, ``integer``, ``number`` or ``boolean``, as JSON Schema calls them.
    default
        What it is where it is not given; None: left out.
    many
        It may occur so many times, and is a tuple; 0: once.
    """

    name: str
    kind: str
    about: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    many: int = 0

    def schema(self) -> dict[str, Any]:
        """Return what JSON Schema says of one value."""
        found: dict[str, Any] = {"type": self.kind}
        if self.kind == "string":
            found |= {"maxLength": int(self.most)} if self.most is not None else {}
        else:
            found |= {name: value for name, value in (("minimum", self.least), ("maximum", self.most)) if value is not None}
        found |= {"enum": list(self.choices)} if self.choices else {}
        if self.many:
            return {"type": "array", "items": found, "maxItems": self.many}
        return found | ({"default": self.default} if self.default is not None else {})

    def describe(self) -> dict[str, Any]:
        """Return the parameter as OpenAPI has it."""
        return {"name": self.name, "in": "query", "description": self.about, "required": False, "schema": self.schema()}

    def read(self, given: Sequence[str]) -> Any:
        """Return the value of what was given, checked.

        Raises
        ------
        RequestError
        """
        if self.many:
            if len(given) > self.many:
                raise RequestError(422, f"{self.name}: expected at most {self.many}, got {len(given)}")
            return tuple(map(self._value, given))
        if not given:
            return self.default
        if len(given) > 1:
            raise RequestError(422, f"{self.name}: expected once, got {len(given)} times")
        return self._value(given[0])

    def _value(self, text: str) -> Any:
        value = _READ[self.kind](text)
        if value is None or (self.choices and value not in self.choices):
            raise self._refused(text)
        size = len(value) if isinstance(value, str) else value
        if (self.least is not None and size < self.least) or (self.most is not None and size > self.most):
            raise self._refused(text)
        return value

    def _refused(self, text: str) -> RequestError:
        wanted = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}[self.kind]
        if self.choices:
            wanted = "one of " + ", ".join(self.choices)
        elif self.least is not None or self.most is not None:
            unit = " characters" if self.kind == "string" else ""
            wanted += f" from {self.least or 0:g} to {'any' if self.most is None else f'{self.most:g}'}{unit}"
        return RequestError(422, f"{self.name}: expected {wanted}, got {text[:100]!r}")


def read_parameters(parameters: Sequence[Parameter], given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return all parameters by name; what is not declared is refused.

    Raises
    ------
    RequestError
    """
    known = {parameter.name for parameter in parameters}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise RequestError(422, f"{unknown[0][:100]!r}: expected parameters of {', '.join(sorted(known)) or 'none'}")
    return {parameter.name: parameter.read(given.get(parameter.name, ())) for parameter in parameters}


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_READ: dict[str, Callable[[str], Any]] = {"string": str, "integer": _whole, "number": _number, "boolean": _FLAGS.get}
