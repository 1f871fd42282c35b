"""Files of a source that are no images of it: left out, counted, and named by extension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from labelstore.image_formats import is_image_name

_MAC = "__MACOSX"
_SHOWN = 6


def is_hidden(name: str) -> bool:
    """Whether a path below a source is hidden: a part of it begins with a dot, or is what macOS packs beside archives."""
    return any(part.startswith(".") or part == _MAC for part in name.split("/"))


def chosen_names(names: Iterable[str], hidden: bool) -> tuple[list[str], tuple[str, ...]]:
    """Return the images among some files, and what is to be said of the others.

    Parameters
    ----------
    names
        Paths below the source.
    hidden
        Whether hidden files are taken.
    """
    chosen: list[str] = []
    others: Counter[str] = Counter()
    left_out = 0
    for name in names:
        if not is_image_name(name):
            others[extension_of(name)] += not is_hidden(name)
        elif not hidden and is_hidden(name):
            left_out += 1
        else:
            chosen.append(name)
    return chosen, (*_hidden_note(left_out), *others_note(others))


def seen_names(names: Sequence[str], hidden: bool) -> tuple[list[int], tuple[str, ...]]:
    """Return the places of images that are not hidden, and what is to be said of the others."""
    if hidden:
        return list(range(len(names))), ()
    kept = [at for at, name in enumerate(names) if not is_hidden(name)]
    return kept, tuple(_hidden_note(len(names) - len(kept)))


def extension_of(name: str) -> str:
    """Return a file's extension in lower case; its name's own word for none."""
    return PurePosixPath(name).suffix.lower() or "no extension"


def others_note(others: Counter[str]) -> tuple[str, ...]:
    """Say which files were not looked at, by extension."""
    found = [(extension, count) for extension, count in sorted(others.items(), key=lambda item: (-item[1], item[0])) if count]
    if not found:
        return ()
    total = sum(count for _, count in found)
    listed = ", ".join(f"{extension} {count:,}" for extension, count in found[:_SHOWN])
    more = ", ..." if len(found) > _SHOWN else ""
    files = "1 other file was" if total == 1 else f"{total:,} other files were"
    return (f"{files} not looked at: {listed}{more}",)


def _hidden_note(count: int) -> list[str]:
    if not count:
        return []
    images = "1 hidden image was" if count == 1 else f"{count:,} hidden images were"
    return [f"{images} left out (names that begin with a dot, {_MAC}): --hidden takes them, as ImageFolder does"]
