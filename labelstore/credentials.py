"""Credentials in URLs: what opens a place must not be kept, shown or logged with its name.

One rule for attributes, image ids, reasons of failed rows, errors and lines for people: a URL loses its user information
(``https://user:password@host``, ``s3://key:secret@bucket``) and the parameters of its query that sign it or hold a token.
Everything else of the text stays as it is.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r'(?P<user>[^/?#\s"<>\\]*@'  # and, where a secret has a slash, up to the next @: what follows the colon is no port
    r'|[^/?#\s:@"<>\\]+:(?!:|\d*(?:[/?#\s]|$))(?:(?!://)[^\s@"<>\\])*@)'
)
_NO_USERS = ("file", "local", "memory", "github")
"""Schemes whose names may hold an @ that ends no user information."""
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes that have a container there, unless there is a colon."""
_QUERY = re.compile(r'\?[^\s"<>\\]*')
_AFTER = ",;:.)'"
"""What may follow a URL in a sentence."""
_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-ms-")
_NAMES = re.compile(
    r"signature|sig|jwt|__token__|((access|auth|id|refresh|sas|session|security)[_-]?)?token|"
    r"s[eprtv]|spr|sip|srt|ss|sko?id|sktid|sk[tesv]|expires|"
    r"(aws|oss)?access_?key(id)?|googleaccessid|key-pair-id|policy|(api|secret)[_-]?key|"
    r"password|passwd|pwd|(client_)?secret|auth|authorization|credentials?|hdnea|hdnts"
)
"""Of Amazon, Google, Azure (``se`` to ``skv``), CloudFront, Akamai, and of those who put a password there."""


def without_credentials(text: str) -> str:
    """Return a text in which no URL has credentials."""
    start = text.find("://")
    if start < 0:
        return text
    text = _USER.sub(_without_user, text)
    return text[:start] + _QUERY.sub(_without_signature, text[start:])


def credentials_in_id(image_id: str) -> bool:
    """Whether an image id, which may be a URL without its scheme, has credentials."""
    if "://" in image_id:
        return without_credentials(image_id) != image_id
    return "?" in image_id and _QUERY.sub(_without_signature, image_id) != image_id


def safe_id(image_id: str) -> str:
    """Return an image id as errors show it: without credentials."""
    return without_credentials(image_id) if "://" in image_id else _QUERY.sub(_without_signature, image_id)


def _without_user(found: re.Match[str]) -> str:
    scheme, user = found["scheme"].lower(), found["user"]
    if scheme in _NO_USERS or (scheme in _CONTAINERS and ":" not in user):
        return found[0]
    return f"{found['scheme']}://"


def _without_signature(found: re.Match[str]) -> str:
    query = found[0].rstrip(_AFTER)
    pieces = re.split(r"([?&;#])", query)
    kept = ""
    for mark, parameter in zip(pieces[1::2], pieces[2::2], strict=True):
        if not _is_credential(parameter):
            kept += (mark if kept or mark == "#" else "?") + parameter
    return kept + found[0][len(query) :]


def _is_credential(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    name, value = unquote(name).strip().lower(), unquote(value)
    known = _NAMES.fullmatch(name) is not None or name.startswith(_PREFIXES)
    return bool(value) and (known or without_credentials(value) != value)  # or a URL within the URL
