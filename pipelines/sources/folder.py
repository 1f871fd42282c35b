"""A folder of images, searched recursively: local, or behind a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labelstore.errors import ImagesError
from labelstore.pipelines.sources.bytesio import LISTING_SECONDS, call, with_retries
from labelstore.pipelines.sources.listing import Listing, check_ids, folder_targets
from labelstore.pipelines.sources.places import FilePlace
from labelstore.pipelines.sources.spec import EXTENSIONS, PARQUETS, TARS, is_image_name, is_url

_SOURCES = "a folder of images, a list (.txt, .csv), or tar or Parquet files"


@dataclass(frozen=True)
class _Below:
    root: str
    ids: tuple[str, ...]

    def __getitem__(self, row: int) -> FilePlace:
        return FilePlace(f"{self.root}/{self.ids[row]}")


def list_folder(location: str) -> Listing:
    """List the images below a folder, links followed, in byte order of their paths.

    Raises
    ------
    ImagesError
        The folder is missing, empty, holds no image, or a file's name cannot be an image id.
    """
    root = location.rstrip("/") if is_url(location) else str(Path(location).absolute())
    found = _remote(root) if is_url(location) else list(walk_files(Path(location), _SOURCES))
    names = sorted((name for name in found if is_image_name(name)), key=os.fsencode)
    if not names:
        raise ImagesError(
            f"{location}: no images below this folder ({len(found)} other files){_hint(location, found)}; "
            f"known: {', '.join(EXTENSIONS)}"
        )
    ids = tuple(names)
    places = _Below(root, ids)
    check_ids(ids, places, location)
    return Listing(root, ids, *folder_targets(ids), places)


def _hint(location: str, names: list[str]) -> str:
    for ending in (*TARS, *PARQUETS):
        if any(name.endswith(ending) for name in names):
            return f"; for its {ending} files: '{location.rstrip('/')}/*{ending}'"
    return ""


def _remote(root: str) -> list[str]:
    try:
        found = with_retries(root, lambda system, path: (path, call(system, "find", path, seconds=LISTING_SECONDS)))
    except OSError as error:
        raise ImagesError(f"{root}: cannot be listed: {error.strerror}") from error
    path, files = found
    prefix = path.rstrip("/") + "/"
    if not files:
        raise ImagesError(f"{root}: expected a folder with files below it, found none; a web server's folder needs a list")
    return [str(file)[len(prefix) :] for file in files if str(file).startswith(prefix)]


def walk_files(root: Path, expected: str) -> Iterator[str]:
    """Yield files as paths below the root, as they are found. Links are followed, but not back into a folder they lie in.

    Parameters
    ----------
    expected
        For the message: what the root should be.

    Raises
    ------
    ImagesError
        It is no folder, or one that cannot be read.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise ImagesError(f"{root}: expected {expected}, found {found}")
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        prefix, above = waiting.pop()
        folder = root / prefix
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        waiting.append((f"{prefix}{entry.name}/", above | {here}))
                    else:
                        yield prefix + entry.name
        except OSError as error:
            raise ImagesError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it fails, and the row says why
        return False
