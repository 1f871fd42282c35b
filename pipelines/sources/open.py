"""From what a user names to the images that are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from labelstore.errors import ImagesError
from labelstore.pipelines.sources.bytesio import LISTING_SECONDS, call, with_retries
from labelstore.pipelines.sources.folder import list_folder
from labelstore.pipelines.sources.listing import Listing
from labelstore.pipelines.sources.pathlist import list_paths
from labelstore.pipelines.sources.spec import MOST_NAMES, ImagesSpec, expand_braces, is_url


def list_images(images: ImagesSpec | Path | str) -> Listing:
    """List the images of a source.

    Raises
    ------
    ImagesError
        There is no such source, it is empty or damaged, or its images have no ids that tell them apart.
    MissingExtraError
        A package that it needs is not installed.
    """
    spec = images if isinstance(images, ImagesSpec) else ImagesSpec((str(images),))
    kind = spec.kind
    _check_columns(spec, kind)
    if kind == "folder":
        return list_folder(spec.locations[0], spec.hidden)
    if kind == "list":
        return list_paths(spec)
    files = _files(spec.locations)
    if kind == "tar":
        from labelstore.pipelines.sources.tar import list_tars

        return list_tars(files, ", ".join(spec.locations), spec.hidden)
    from labelstore.pipelines.sources.parquet import list_parquets

    return list_parquets(files, spec)


def _check_columns(spec: ImagesSpec, kind: str) -> None:
    given = {"--images-root": spec.root if kind != "list" else None}
    if kind in ("folder", "tar"):
        columns = (spec.image_column, spec.id_column, spec.label_column)
        given |= dict(zip(("--image-column", "--id-column", "--label-column"), columns, strict=True))
    wrong = [option for option, value in given.items() if value is not None]
    if wrong:
        raise ImagesError(f"{', '.join(wrong)}: not for a {kind}: columns are for CSV lists and Parquet, a root for lists")


def _files(patterns: tuple[str, ...]) -> list[str]:
    """Return the files that patterns stand for, in order; braces give all that they name, ``*`` what is there."""
    files: list[str] = []
    for name in expand_all(patterns):
        files.extend(_matches(name) if "*" in name else [name])
    twice = next((name for name, times in Counter(files).items() if times > 1), None)
    if twice is not None:
        raise ImagesError(f"{twice}: named twice")
    return files


def expand_all(patterns: tuple[str, ...]) -> list[str]:
    """Return what braces in several patterns stand for, in order.

    Raises
    ------
    ImagesError
        Too much: as `expand_braces`, and not more than that in all.
    """
    names: list[str] = []
    for pattern in patterns:
        names += expand_braces(pattern)
        if len(names) > MOST_NAMES:
            raise ImagesError(f"{pattern[:200]}: expected at most {MOST_NAMES:,} names in all, got more")
    return names


def _matches(pattern: str) -> list[str]:
    if not is_url(pattern):
        first, _, rest = pattern.partition("*")
        folder = Path(first).parent if not first.endswith("/") else Path(first)
        below = first[len(str(folder)) :].lstrip("/") if str(folder) != "." else first
        found = sorted(map(str, folder.glob(f"{below}*{rest}")))
    else:
        protocol = pattern.split("://")[0]
        try:
            paths = with_retries(pattern, lambda system, path: call(system, "glob", path, seconds=LISTING_SECONDS))
        except OSError as error:
            raise ImagesError(f"{pattern}: cannot be listed: {error.strerror}") from error
        found = sorted(path if is_url(path) else f"{protocol}://{path}" for path in map(str, paths))
    if not found:
        raise ImagesError(f"{pattern}: no such files")
    return found
