"""Checksums of a store's metadata: what no commit covers, and a single wrong digit of which can make labels wrong.

Beside its ``labelstore`` attributes a group keeps their crc32c and that of each array's ``zarr.json``; the attributes of
``commits`` are a copy of the group's. All of them are written as `json_bytes` writes, so that not even an altered letter of an
escape or an exponent, which means the same, goes unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from labelstore.errors import DamagedError
from labelstore.schema import ATTRIBUTE

SEALS = "labelstore_seals"
"""The attribute that holds the checksums, by array; those of the attributes under ``attributes``."""
_OWN = "attributes"


def json_bytes(value: object) -> bytes:
    """Return a ``zarr.json`` as this project writes it."""
    return json.dumps(value, indent=2, allow_nan=False).encode()


def seal_of(value: object) -> int:
    """Return the crc32c of JSON, the same whatever the order of keys and the spaces."""
    checksum: int = google_crc32c.value(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    return checksum


def array_seal(meta: Mapping[str, Any]) -> int:
    """Return the checksum of an array's metadata, its attributes apart."""
    return seal_of({**meta, "attributes": {}})


def sealed_attributes(info: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the attributes of a store's group: what it says of itself, and the checksums of that and its arrays' metadata."""
    seals = {_OWN: seal_of(info), **{name: array_seal(meta) for name, meta in arrays.items()}}
    return {ATTRIBUTE: dict(info), SEALS: seals}


def array_seals(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the checksums of the arrays' metadata, by array; none in a store of others."""
    seals = attributes.get(SEALS)
    return seals if isinstance(seals, Mapping) else {}


def check_attributes(attributes: Mapping[str, Any], where: str) -> None:
    """Hold a store's attributes against their checksum, if there is one: others may have made the store.

    Raises
    ------
    DamagedError
    """
    seals = array_seals(attributes)
    if seals and seals.get(_OWN) != seal_of(attributes.get(ATTRIBUTE)):
        sums = f"expected checksum {str(seals.get(_OWN))[:20]}, found {seal_of(attributes.get(ATTRIBUTE))}"
        raise DamagedError(
            f"{where}/zarr.json: the attributes are not those that were written: {sums}; `labelstore repair` takes them from "
            "their copy"
        )
