"""The photographs that a store's maps were made of, read again by image id: to be looked at beside the maps."""

from __future__ import annotations

import stat
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from labelstore.errors import ImageDecodeError, ImagesError, LabelStoreError
from labelstore.pipelines.recorded_roots import recorded_spec, split_locations
from labelstore.pipelines.sources import FilePlace, ImagesSpec, Listing, Place, list_images
from labelstore.pipelines.sources.bytesio import read_all
from labelstore.pipelines.sources.listing import id_problem
from labelstore.pipelines.sources.spec import is_folder, is_url
from labelstore.schema import StoreInfo


class Root(Protocol):
    """Where photographs lie, found by id."""

    def read(self, image_id: str) -> bytes:
        """Return the image file's bytes.

        Raises
        ------
        ImagesError
            There is none, it cannot be read, or it lies outside of the root; the message says which.
        """
        ...

    def stamp(self, image_id: str) -> str | None:
        """Return what changes when the file does, without reading it; None where that is not known. Raises as `read`."""
        ...


class Photographs:
    """The photographs of a store. May be used from several threads.

    Parameters
    ----------
    info
        The store, which records where its images lay, run by run.
    images
        Where they are instead: a folder, a list, tar or Parquet files; paths or URLs, as ``annotate`` takes them. What the
        store records is followed within bounds alone: see `labelstore.pipelines.recorded_roots`.
    """

    def __init__(self, info: StoreInfo, images: str | None = None) -> None:
        self._info, self._images = info, images

    def root(self, row: int) -> Root:
        """Return where a row's photograph lies.

        Raises
        ------
        ImagesError
            The store does not say, its root is not followed, or nothing is there.
        """
        if self._images:
            return open_root(self._images)
        location = self._info.extent_of(row).images_root
        if not location:
            raise ImagesError("the store does not say where its images lie: name their root with --images")
        return open_recorded_root(location)


@lru_cache(maxsize=64)
def open_recorded_root(location: str) -> Root:
    """Open a root that a store records. Raises as `labelstore.pipelines.recorded_roots.recorded_spec` and `open_root`."""
    recorded_spec(location)
    return open_root(location)


@lru_cache(maxsize=64)
def open_root(location: str) -> Root:
    """Open a root; folders are not listed, other sources are.

    Raises
    ------
    ImagesError
    """
    spec = ImagesSpec(split_locations(location))
    if spec.kind == "folder":
        return _RemoteFolder(location.rstrip("/")) if is_url(location) else _Folder(location)
    return _Listed(list_images(spec))


class _Folder:
    """A folder here. What a link in it leads out of it is not served: ids come from a file that anybody may have written."""

    def __init__(self, location: str) -> None:
        self._root = Path(location).resolve()
        if not is_folder(location):
            raise ImagesError(f"{location[:200]}: no such folder; where the photographs lie now: --images FOLDER")

    def read(self, image_id: str) -> bytes:
        """See `Root.read`."""
        try:
            return read_all(str(self._path(image_id)))
        except OSError as error:
            raise ImagesError(f"{image_id}: cannot be read: {error.strerror or error}") from error

    def stamp(self, image_id: str) -> str:
        """See `Root.stamp`."""
        found = self._path(image_id).stat()
        return f"{found.st_mtime_ns:x}-{found.st_size:x}"

    def _path(self, image_id: str) -> Path:
        _check_id(image_id)
        try:
            path = (self._root / image_id).resolve(strict=True)
            regular = stat.S_ISREG(path.lstat().st_mode)
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImagesError(f"{image_id}: not in {self._root}: {reason}; where it lies now: --images FOLDER") from error
        if not path.is_relative_to(self._root):
            raise ImagesError(f"{image_id}: a link that leads out of {self._root}; not followed")
        if not regular:
            raise ImagesError(f"{image_id}: not a file")
        return path


class _RemoteFolder:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, image_id: str) -> bytes:
        """See `Root.read`."""
        _check_id_in_url(image_id)
        return _read(FilePlace(f"{self._url}/{image_id}"), image_id)

    def stamp(self, image_id: str) -> None:
        """See `Root.stamp`."""
        _check_id_in_url(image_id)


class _Listed:
    """A source whose images are known by a list, in byte order of their ids."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._order = sorted((image_id.encode(), place) for place, image_id in enumerate(listing.ids))

    def read(self, image_id: str) -> bytes:
        """See `Root.read`."""
        return _read(self._place(image_id), image_id)

    def stamp(self, image_id: str) -> None:
        """See `Root.stamp`."""
        self._place(image_id)

    def _place(self, image_id: str) -> Place:
        wanted = image_id.encode(errors="surrogatepass")
        at = bisect_left(self._order, (wanted, -1))
        if at == len(self._order) or self._order[at][0] != wanted:
            raise ImagesError(f"{image_id}: not in {self._listing.root}")
        return self._listing.places[self._order[at][1]]


def _check_id(image_id: str) -> None:
    """Refuse an id that, joined to a root, would lead out of it."""
    problem = id_problem(image_id) or ("expected no '/' at its start" if image_id.startswith("/") else "")
    if problem:
        raise ImagesError(f"image id {image_id!r}: {problem}")


def _check_id_in_url(image_id: str) -> None:
    """Likewise, also as servers may read it."""
    for reading in (image_id, unquote(image_id), unquote(image_id).replace("\\", "/")):
        _check_id(reading)


def _read(place: Place, image_id: str) -> bytes:
    try:
        return place.read()
    except (OSError, ImageDecodeError) as error:
        if isinstance(error, LabelStoreError):
            raise ImagesError(f"{image_id}: {error}") from error
        raise ImagesError(f"{image_id}: cannot be read: {error.strerror or error}") from error
