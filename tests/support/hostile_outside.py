"""What leads out of a store: links, programs, images elsewhere. Each function makes one change and says which."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from hostile_cases import CHANGES as INSIDE
from hostile_files import bind
from hostile_stores import HostileStore
from hostile_world import CANARY, STRANGER, world_of

from labelstore.schema import ATTRIBUTE

_HEX = "0123456789abcdef" * 2
_ESCAPES = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\x1b]8;;http://127.0.0.1/\x1b\\here",
    "a\rb",
    "\x00",
    "\x7f",
)
_BOMBS = ("{0..999999999}.tar", "{a,b}" * 40, "x-{0..9999}{0..9999}.tar", "*/" * 60, "**/*")


def link_to_file(store: HostileStore, rng: Random) -> str:
    """Put a link, or a second name of a file elsewhere, in the place of a file."""
    files = [*store.data, *(store.meta(spec.name) for spec in store.specs), store.meta("")]
    file, target = rng.choice(files), rng.choice(("c.0", "c.0.0.0.0", "zarr.json", "secret.txt"))
    if not file.parent.is_dir() or file.parent.is_symlink():
        return "nothing"
    store.remove(file)
    if rng.random() < 0.2:
        os.link(_canary(store, target), file)
        return f"{store.name(file)}: the same file as the canary's {target}"
    file.symlink_to(_canary(store, target))
    return f"{store.name(file)}: a link to {target}"


def link_to_folder(store: HostileStore, rng: Random) -> str:
    """Put a link to a folder elsewhere in the place of an array."""
    folder = store.path / rng.choice(store.specs).name
    if folder.is_symlink():
        return "nothing"
    store.remove(folder)
    folder.symlink_to(_canary(store, rng.choice((".", "below", "empty"))))
    return f"{folder.name}: a link to a folder"


def more_links(store: HostileStore, rng: Random) -> str:
    """Add links by the names of what a run may remove: old ids, halves of files, copies that were set aside."""
    array = rng.choice(store.specs).name
    name = rng.choice(
        (
            *("ids_7", "ids_1", "ids_2", f"{array}/c.99.0.0.0", f"{array}/c.99", "classes", "spectra", "image_size"),
            *(f"zarr.json.{_HEX}.partial", f"{array}/c.0.{_HEX}.partial", f"{array}/c.0.0.0.0.{_HEX}.partial", "x.partial"),
            *("commits/c.0.0.0.set-aside", "set_aside", "lost", "unfinished", f"{array}/{STRANGER}link"),
        )
    )
    place = store.path / name
    if os.path.lexists(place) or not place.parent.is_dir() or place.parent.is_symlink():
        return "nothing"
    target = rng.choice((".", "below", "empty", "c.0", "secret.txt"))
    place.symlink_to(_canary(store, target))
    return f"{name}: a link to {target}"


def lock(store: HostileStore, rng: Random) -> str:
    """Put anything in the place of the lock."""
    place, kind = store.path / ".lock", rng.choice(("pipe", "link", "folder", "socket", "zero", "nowhere", "huge", "text"))
    store.remove(place)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind in ("link", "zero", "nowhere"):
        place.symlink_to({"link": _canary(store, "lock"), "zero": "/dev/zero", "nowhere": _canary(store, "new")}[kind])
    elif kind == "folder":
        place.mkdir()
    elif kind == "socket":
        bind(place)
    else:
        place.write_bytes(b'{"pid": 1, "host": "\x1b[2J", "since": []}')
        if kind == "huge":
            os.truncate(place, 2**38)
    return f"lock: {kind}"


def stranger(store: HostileStore, rng: Random) -> str:
    """Add files and folders that are none of a store's."""
    place = (
        store.path
        / rng.choice(("", *(spec.name for spec in store.specs)))
        / f"{STRANGER}{rng.choice(('a', 'b.partial', 'c.0'))}"
    )
    if os.path.lexists(place) or not place.parent.is_dir() or place.parent.is_symlink():
        return "nothing"
    if rng.random() < 0.5:
        place.mkdir()
        (place / f"{STRANGER}file").write_bytes(b"somebody's")
    else:
        place.write_bytes(b"somebody's")
    return f"{store.name(place)} added"


def root(store: HostileStore, rng: Random) -> str:
    """Say that the images lie elsewhere."""
    port = (world_of(store.path) / "port").read_text()
    where: Any = rng.choice(
        (
            *(f"http://127.0.0.1:{port}", f"http://user:secret@localhost:{port}/x", f"s3://127.0.0.1:{port}/bucket"),
            *(_canary(store, "."), _canary(store, "magenta.png"), "/", "/proc/self", "..", "", "~", "/dev/zero", *_BOMBS),
            *(f"http://127.0.0.1:{port}/{_BOMBS[0]}", [_canary(store, "."), f"http://127.0.0.1:{port}"], [], [7], _ESCAPES[0]),
        )
    )

    def change(found: Any) -> None:
        own = found["attributes"][ATTRIBUTE]
        own["images_root"] = where
        for extent in own.get("extents") or ():
            extent["images_root"] = where

    store.edit("", change)
    return f"images_root: {str(where)[:80]}"


def program(store: HostileStore, rng: Random) -> str:
    """Name another annotator: a program, weights that lie elsewhere, a hub."""
    port = (world_of(store.path) / "port").read_text()
    name, weights = rng.choice(
        (
            *(("canary_program:factory", None), (_canary(store, "weights.pth"), None), ("weights.pt2", None)),
            *(("toy_annotators:colours", _canary(store, "weights.pth")), ("timm:resnet18", f"http://127.0.0.1:{port}/w.pth")),
            *(
                (f"timm:hf-hub:127.0.0.1:{port}/x", None),
                ("os:system", None),
                ("torchvision:resnet18", None),
                ("+".join("ab"), None),
            ),
            *(
                (_canary(store, "weights.pt"), _canary(store, "weights.pth")),
                ("toy_annotators:not_finite", None),
                ("\x1b[2J", None),
            ),
        )
    )

    def change(found: Any) -> None:
        annotator = found["attributes"][ATTRIBUTE]["annotator"]
        annotator["name"] = annotator["requested"] = name
        if weights is not None:
            annotator["weights"] = weights

    store.edit("", change)
    return f"annotator: {name}"


def escapes(store: HostileStore, rng: Random) -> str:
    """Write what a terminal would obey into names."""
    text = rng.choice(_ESCAPES)

    def change(found: Any) -> None:
        own = found["attributes"][ATTRIBUTE]
        own["class_names"] = [f"{text}{number}" for number in range(int(own["num_classes"]))]
        own["annotator"]["precision"] = own["created"] = text
        own["target_names"] = [text]

    store.edit("", change)
    return f"names with {text!r}"


def _canary(store: HostileStore, name: str) -> str:
    return str(world_of(store.path) / CANARY / name)


CHANGES = (
    link_to_file,
    link_to_file,
    link_to_folder,
    more_links,
    more_links,
    lock,
    stranger,
    root,
    root,
    program,
    program,
    escapes,
)
ALL_CHANGES = (*CHANGES, *CHANGES, *INSIDE)
"""Half of them lead outside."""
