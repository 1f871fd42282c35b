"""A folder of images, searched recursively: local, or behind a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labelstore.errors import ImagesError
from labelstore.image_formats import extensions
from labelstore.pipelines.sources.bytesio import LISTING_SECONDS, call, with_retries
from labelstore.pipelines.sources.listing import NOT_UTF8, Listing, check_ids, escaped_id, folder_targets, is_text
from labelstore.pipelines.sources.passing_over import chosen_names
from labelstore.pipelines.sources.places import ExcludedPlace, FilePlace, Place
from labelstore.pipelines.sources.spec import PARQUETS, TARS, is_url

_SOURCES = "a folder of images, a list (.txt, .csv), or tar or Parquet files"


@dataclass(frozen=True)
class _Below:
    root: str
    ids: tuple[str, ...]
    unnameable: Mapping[str, Place]

    def __getitem__(self, row: int) -> Place:
        image_id = self.ids[row]
        return self.unnameable.get(image_id) or FilePlace(f"{self.root}/{image_id}")


def list_folder(location: str, hidden: bool = False) -> Listing:
    """List the images below a folder, links followed, in byte order of their paths.

    A file whose name is not UTF-8 has an id with the bytes escaped, and its row fails.

    Raises
    ------
    ImagesError
        The folder is missing, empty, holds no image, or a file's name cannot be an image id.
    """
    root = location.rstrip("/") if is_url(location) else str(Path(location).absolute())
    found = _remote(root) if is_url(location) else list(walk_files(Path(location), _SOURCES))
    names, notes = chosen_names(found, hidden)
    if not names:
        raise ImagesError(
            f"{location}: no images below this folder ({len(found)} other files){_hint(location, found)}; "
            f"known: {', '.join(extensions())}{''.join(f'. {note}' for note in notes)}"
        )
    escaped = {name: escaped_id(name) for name in names if not is_text(name)}
    ids = tuple(sorted((escaped.get(name, name) for name in names), key=str.encode))
    places = _Below(root, ids, {image_id: ExcludedPlace(NOT_UTF8) for image_id in escaped.values()})
    check_ids(ids, places, location)
    return Listing(root, ids, *folder_targets(ids), places, notes)


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
