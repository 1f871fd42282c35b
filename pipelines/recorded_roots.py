"""Where a store says that its images lie, and what is read of that: the store may come from anywhere.

A root that a store records is followed only on this machine, and only to files of images: nothing behind a URL, no list (which
may name anything), no system folder, no link out of the root. A root that the user names has none of these bounds.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from labelstore.errors import ImagesError
from labelstore.pipelines.sources import ImagesSpec, Listing, Place, list_images
from labelstore.pipelines.sources.listing import Places
from labelstore.pipelines.sources.open import expand_all
from labelstore.pipelines.sources.places import ExcludedPlace, FilePlace
from labelstore.pipelines.sources.spec import is_url

SYSTEM_FOLDERS = ("/dev", "/net", "/proc", "/run", "/sys")
"""Reading there is no reading of files, or asks other machines (/net)."""
_SHOWN = 200


def recorded_spec(location: str) -> ImagesSpec:
    """Return the images of a root that a store records.

    Raises
    ------
    ImagesError
        It is not followed; the message says why, and how to name it.
    """
    spec = ImagesSpec(split_locations(location))
    if "\0" in location:
        raise _refusal(location, "no name holds NUL")
    if any(map(is_url, spec.locations)):
        raise _refusal(location, "nothing is fetched from an address out of a store")
    kind = spec.kind  # asked once: it looks at every location
    if kind == "list":
        raise _refusal(location, "a list may name any file")
    names = spec.locations if kind == "folder" else expand_all(spec.locations)
    if any("**" in name for name in names):
        raise _refusal(location, "'**' may stand for any number of files")
    for folder in {Path(name) if kind == "folder" else Path(name).parent for name in names}:
        _require_usual(location, folder)
    return spec


def recorded_listing(location: str) -> Listing:
    """List the images of a root that a store records; files that a link leads to outside of the root are not read.

    Raises
    ------
    ImagesError
        As `recorded_spec`, or nothing is there.
    """
    spec = recorded_spec(location)
    listing = list_images(spec)
    if spec.kind != "folder":
        return listing
    return replace(listing, places=_Below(listing.places, Path(listing.root).resolve()))


def split_locations(location: str) -> tuple[str, ...]:
    """Return the files, folders or URLs that a recorded root stands for: several are told apart by a comma and a blank."""
    whole = not is_url(location) and _exists(location)  # its name may hold them
    return (location,) if whole else tuple(location.split(", "))


def outside(path: Path, root: Path) -> bool:
    """Whether a file, links followed, lies outside of a root that is resolved."""
    return not path.resolve().is_relative_to(root)


@dataclass(frozen=True)
class _Below:
    """Places of which those outside of a folder are not read."""

    places: Places
    root: Path

    def __getitem__(self, row: int) -> Place:
        place = self.places[row]
        if isinstance(place, FilePlace) and outside(Path(place.location), self.root):
            return ExcludedPlace(f"a link that leads out of {self.root}; not followed")
        return place


def _require_usual(location: str, folder: Path) -> None:
    """Refuse system folders, and the root of all: by name first, since looking at one may already ask another machine."""
    for look in (os.path.abspath, os.path.realpath):
        found = Path(look(folder))
        if found == Path("/") or any(found.is_relative_to(system) for system in SYSTEM_FOLDERS):
            raise _refusal(location, f"{found} is a system folder")


def _refusal(location: str, reason: str) -> ImagesError:
    shown = location if len(location) <= _SHOWN else f"{location[:_SHOWN]}..."
    return ImagesError(
        f"the store says that its images lie at {shown!r}: {reason}; if you trust it, name it: --images {shlex.quote(shown)}"
    )


def _exists(location: str) -> bool:
    try:
        return Path(location).exists()
    except OSError:  # too long for a name
        return False
