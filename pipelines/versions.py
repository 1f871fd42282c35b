"""Versions of installed packages: those that a store records, and those that everybody who writes to it must have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

_RECORDED = ("labelstore", "torch", "torchvision", "timm", "pillow", "numpy", "zarr", "numcodecs")
SHARED = ("labelstore", "torch", "zarr")
"""Those that make the bytes of a store."""


@functools.cache
def recorded_versions() -> Mapping[str, str]:
    """Return the versions that a new store records, as this process has found them."""
    return _installed(_RECORDED)


@functools.cache
def shared_versions() -> Mapping[str, str]:
    """Return the versions that all processes of a run must have, as this one has found them."""
    return _installed(SHARED)


def differences(expected: Mapping[str, str], found: Mapping[str, str | None]) -> str:
    """Say which versions are not those that are expected; '' if all are."""
    return ", ".join(
        f"{name} {found.get(name)} (here: {wanted})" if found.get(name) else f"no {name} (here: {wanted})"
        for name, wanted in expected.items()
        if found.get(name) != wanted
    )


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
