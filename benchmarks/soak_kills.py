"""Lives of stores, until every planned kill has happened.

A life is one store from nothing to finished. It has up to three kills; a run that does not survive one is started again. A
store that is finished lives once more, through --retry-failed or through damage and repair, killed as it gives shards up.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from damage import labels_of
from folder_events import FolderEvents
from folders import store_contents
from soak_life import RUN_SECONDS, Kill, Life, Original, Outcome, options_of
from soak_setups import Local, Processes, Separate, annotate

KILLS_A_LIFE = 3
SETUPS = {setup.name: setup for setup in (Local, Separate)}


class Soak:
    """Lives of stores of some images.

    Parameters
    ----------
    folder
        For stores and logs.
    """

    def __init__(self, images: Path, folder: Path, seed: int, encodings: Sequence[str]) -> None:
        self._images, self._folder, self._seed = images, folder, seed
        self.outcome = Outcome()
        self._originals = {encoding: self._undisturbed(encoding) for encoding in encodings}

    def live(self, kills: Sequence[Kill]) -> list[Kill]:
        """A store from nothing to finished; return the kills that did not happen because the run was over."""
        number, original = self.outcome.lives, self._originals[kills[0].encoding]
        self.outcome.lives += 1
        folder = self._folder / f"life-{number}"
        folder.mkdir()
        life = Life(self._images, folder, original, random.Random(f"{self._seed} {number}"), self.outcome)
        setup = SETUPS[kills[0].setup](folder)
        try:
            return life.go_through(setup, kills)
        finally:
            life.require(not (left := setup.close()), f"cluster processes that do not end: {left}")

    def give_up(self, how: str, encoding: str) -> None:
        """A finished store whose shards are given up, by a command that is killed at that."""
        number, original = self.outcome.lives, self._originals[encoding]
        self.outcome.lives += 1
        folder = self._folder / f"life-{number}"
        folder.mkdir()
        shutil.copytree(original.store, folder / "labels.zarr")
        Life(self._images, folder, original, random.Random(f"{self._seed} {number}"), self.outcome).give_up(how)

    def _undisturbed(self, encoding: str) -> Original:
        processes, store = Processes(self._folder), self._folder / f"{encoding}.zarr"
        with FolderEvents(store, ("commits",)) as events:
            start = time.monotonic()
            run = annotate(processes, self._images, store, *options_of(encoding), *Local.options, log=f"{encoding}.log")
            if run.wait(RUN_SECONDS):
                raise RuntimeError((self._folder / f"{encoding}.log").read_text())
        first = next(event.at for event in events.so_far() if event.is_in_place and event.folder == "commits")
        return Original(store, encoding, first - start, store_contents(store), labels_of(store))
