"""A folder that nothing may touch, beside the hostile stores: what commands have done to it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from hostile_world import CANARY, IMAGES, MORE

_OLD = 1_000_000_000


class _Seen(NamedTuple):
    """A file or folder, without its content: whatever changes that changes the time too."""

    mode: int
    size: int
    names: int
    read: int
    written: int


class Canary:
    """Looks at the canary, and at the images: content, names and, where the file system keeps them, times of access.

    Times of access are set far back before each command: the kernel renews such a time at the first read, also with `relatime`.
    """

    def __init__(self, world: Path) -> None:
        self._world = world
        # Listing a folder reads it too: names are taken once. A new name changes the folder's own time.
        self._known = [world / CANARY, *sorted((world / CANARY).rglob("*"))]
        self.sees_reads = self._sees_reads()
        self._before: dict[Path, _Seen] = {}
        self._may_be_read: set[Path] = set()

    def set(self, store: Path, links: bool) -> None:
        """Set the times back, and keep what is to be found again.

        Parameters
        ----------
        links
            Whether files may be read behind links that the store has. A file with a second name in the store is one of the
            store's own: it may always be read, and lose that name.
        """
        for path in self._known:
            if os.path.lexists(path):
                os.utime(path, (_OLD, _OLD), follow_symlinks=False)
        self._may_be_read = self._behind_links(store) if links else set()
        self._before = self._look()

    def problems(self) -> list[str]:
        """Say what has been done since."""
        now = self._look()
        return [
            f"{path.relative_to(self._world)}: touched: {self._before.get(path)} -> {now.get(path)}"
            for path in sorted(self._before.keys() | now.keys())
            if not self._is_allowed(path, self._before.get(path), now.get(path))
        ]

    def _is_allowed(self, path: Path, before: _Seen | None, now: _Seen | None) -> bool:
        if before is None or now is None:
            return False
        shared = stat.S_ISREG(before.mode) and before.names > 1
        if shared and 1 <= now.names <= before.names:
            now = now._replace(names=before.names)
        if shared or path in self._may_be_read:
            now = now._replace(read=before.read)
        return now == before

    def _behind_links(self, store: Path) -> set[Path]:
        """The canary's files that paths of store files lead to: never a folder, which would be listed."""
        found = set()
        for link in (path for path in (*store.glob("*"), *store.glob("*/*")) if path.is_symlink()):
            target = Path(os.path.realpath(link))
            found |= {file for file in self._known if file == target or file.parent == target}
        return {file for file in found if file.is_file()}

    def _look(self) -> dict[Path, _Seen]:
        found = {path: _seen(path) for path in self._known if os.path.lexists(path)}
        images = [path for folder in (IMAGES, MORE) for path in sorted((self._world / folder).iterdir())]
        return {**found, **{path: _seen(path)._replace(read=0) for path in images}}

    def _sees_reads(self) -> bool:
        with tempfile.NamedTemporaryFile(dir=self._world / CANARY) as file:
            path = Path(file.name)
            path.write_bytes(b"read me")
            os.utime(path, (_OLD, _OLD))
            path.read_bytes()
            return path.stat().st_atime_ns != _OLD * 10**9


def _seen(path: Path) -> _Seen:
    state = path.lstat()
    return _Seen(state.st_mode, state.st_size, state.st_nlink, state.st_atime_ns, state.st_mtime_ns)
