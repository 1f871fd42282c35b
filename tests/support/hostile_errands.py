"""Runs commands on hostile stores, as a program for a parent process, and notes what they ought not to have done.

python hostile_errands.py WORLD MEGABYTES    reads what to look at from stdin, a JSON object a line; answers on stdout

A command may end with any documented exit code. It may not raise, print control characters, touch what lies outside of the
store, remove files that are none of a store's, run a program, or connect anywhere.
"""

from __future__ import annotations

import faulthandler
import http.client
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from commands import run_here
from hostile_canary import Canary
from hostile_probe import limit_memory, peak_megabytes
from hostile_world import CANARY, IMAGES, MORE, OUT, Audit, Listening, strangers

from labelstore.errors import LabelStoreError

_CODES = {"verify": (0, 1, 3), "repair": (0, 1, 3), "convert": (0, 1, 2)}
"""Those that the documentation names, 0 and 1 of all other commands; `convert` alone is wrong usage where rows are pending."""
_READERS = ("info", "inspect", "report", "convert", "merge", "subset", "export", "evaluate")
"""Commands that go through links in the place of a store's own files, as `LabelMapReader` does."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x0d\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SERIAL, _ONE, _NAMED = ("--workers", "0"), ("--workers", "1"), ("--model", "toy_annotators:colours")
"""Of annotate and of verify, everything in this process; an annotator that the user names."""
_TOKEN = "of-the-viewer-of-hostile-stores"
_VIEWED = ("/", "/api/info", "/api/ids?limit=5", "/api/survey", "/api/failures", "/api/classes", "/healthz", "/metrics")


Errand = Callable[["Errands", Path], None]


class Errands:
    """Tries stores of one world."""

    def __init__(self, world: Path) -> None:
        self.world = world
        self.canary, self.listening, self.audit = Canary(world), Listening(world), Audit(world)
        self.problems: list[str] = []
        self.ended: list[str] = []

    def run(self, store: Path, number: int) -> None:
        """Run one of the errands, chosen by the case's number."""
        self.try_errand(_ERRANDS[number % len(_ERRANDS)], store)

    def try_errand(self, errand: Errand, store: Path) -> None:
        """Run an errand; note what it has done beside its commands' own doings."""
        self.problems, self.ended = [], []
        entries, hits, kept = self._entries(), self.listening.hits, set(strangers(store))
        self.audit.noted, self.audit.active = [], True
        try:
            errand(self, store)
        finally:
            self.audit.active = False
        self.problems += sorted(set(self.audit.noted))
        self.problems += [f"gone: {name}" for name in sorted(kept - set(strangers(store)))]
        self.problems += [f"beside the store: {name}" for name in sorted(self._entries() - entries)]
        if self.listening.hits > hits:
            self.problems.append(f"asked a server {self.listening.hits - hits} times")
        if (self.world / CANARY / "ran").exists():
            self.problems.append("ran the canary's program")
            (self.world / CANARY / "ran").unlink()

    @contextmanager
    def watched(self, store: Path, name: str, links: bool) -> Iterator[None]:
        """Look at the canary before and after a command."""
        self.audit.active = False
        self.canary.set(store, links)
        self.audit.active = True
        yield
        self.audit.active = False
        self.problems += [f"{name}: {problem}" for problem in self.canary.problems()]
        self.audit.active = True

    def command(self, store: Path, *arguments: Any) -> None:
        """Run a command on a store."""
        name = " ".join(str(word) for word in arguments if not str(word).startswith("/"))
        with self.watched(store, name, arguments[0] in _READERS or "--links" in arguments):
            self._run(name, arguments)

    def _run(self, name: str, arguments: Sequence[Any]) -> None:
        try:
            result = run_here(*arguments)
        except BaseException as error:
            where = "".join(traceback.format_exception(error)[-6:])[-2500:]
            self.problems.append(f"{name}: {type(error).__name__}: {str(error)[:200]}\n{where}")
            return
        self.ended.append(f"{arguments[0]} {result.code}")
        if result.code not in _CODES.get(arguments[0], (0, 1)):
            self.problems.append(f"{name}: exit code {result.code}: {result.message[:300]}")
        for stream in (result.out, result.err):
            if found := _CONTROL.search(stream):
                self.problems.append(f"{name}: prints {found[0]!r}: {stream[max(0, found.start() - 80) : found.end() + 20]!r}")
            if "Traceback (most recent call last)" in stream:
                self.problems.append(f"{name}: prints a traceback: {stream[-1500:]}")

    def view(self, store: Path) -> None:
        """Serve the store, and ask for pages, maps, photographs and labels."""
        with self.watched(store, "view", links=True):
            self._view(store)

    def _view(self, store: Path) -> None:
        from labelstore.cli.web.guard import Rules
        from labelstore.cli.web.serve import serving
        from labelstore.cli.web.site import Site

        try:
            site = Site(str(store))
            ids = site.reader.ids[:2]
        except LabelStoreError:
            self.ended.append("view refused")
            return
        except Exception as error:
            self.problems.append(f"view: {traceback.format_exception(error)[-1]}{traceback.format_exc()[-1500:]}")
            return
        asked = [*_VIEWED, *(f"/api/{what}?id={quote(one)}" for one in ids for what in ("map", "photo", "cells", "crops"))]
        with serving(site, Rules(token=_TOKEN, rate=1e6, burst=1e6)) as url:
            place = urlsplit(url)
            self.audit.ports = {place.port or 0}
            for path in asked:
                self._ask(place.netloc, path)
        self.ended.append("view 0")

    def _ask(self, netloc: str, path: str) -> None:
        connection = http.client.HTTPConnection(netloc, timeout=20)
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {_TOKEN}"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 401:
                self.problems.append(f"view {path}: the token is not taken")
            if answer.status >= 500 and not (answer.status in (500, 503) and body.startswith(b'{"error"')):
                self.problems.append(f"view {path}: {answer.status} {body[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            self.problems.append(f"view {path}: {type(error).__name__} {error}")
        finally:
            connection.close()

    def _entries(self) -> set[str]:
        return {entry.name for entry in self.world.iterdir()}


def _verify(errands: Errands, store: Path) -> None:
    errands.command(store, "verify", store, *_ONE)
    errands.command(store, "verify", store, "--sample", 3, *_ONE)
    errands.command(store, "verify", store, "--sample", 3, "--images", errands.world / IMAGES, *_ONE)
    errands.command(store, "verify", store, "--links", *_ONE)
    errands.command(store, "info", store)


def _repair(errands: Errands, store: Path) -> None:
    errands.command(store, "repair", store, *_ONE)
    errands.command(store, "verify", store, "--partial", *_ONE)
    errands.command(store, "annotate", errands.world / IMAGES, "--store", store, *_SERIAL)


def _repair_most(errands: Errands, store: Path) -> None:
    errands.command(store, "repair", store, "--yes", *_ONE)
    errands.command(store, "annotate", errands.world / IMAGES, "--store", store, *_NAMED, *_SERIAL)
    errands.command(store, "repair", store, "--yes", *_ONE)


def _go_on(errands: Errands, store: Path) -> None:
    errands.command(store, "annotate", errands.world / IMAGES, "--store", store, *_SERIAL)
    errands.command(store, "verify", store, "--partial", *_ONE)


def _extend(errands: Errands, store: Path) -> None:
    errands.command(store, "annotate", errands.world / MORE, "--store", store, "--extend", *_SERIAL)
    errands.command(store, "annotate", errands.world / MORE, "--store", store, "--retry-failed", *_SERIAL)


def _named(errands: Errands, store: Path) -> None:
    errands.command(store, "annotate", errands.world / IMAGES, "--store", store, *_NAMED, *_SERIAL)
    errands.command(store, "repair", store, *_ONE)
    errands.command(store, "annotate", errands.world / MORE, "--store", store, "--extend", *_NAMED, *_SERIAL)


def _view(errands: Errands, store: Path) -> None:
    errands.view(store)
    errands.command(store, "inspect", "00.png", "--store", store)


def _copy(errands: Errands, store: Path) -> None:
    made = errands.world / OUT
    made.mkdir()
    errands.command(store, "report", store, "--out", made / "report.html")
    errands.command(store, "subset", store, made / "subset.zarr", "--match", "0*", *_SERIAL)
    errands.command(store, "convert", store, made / "spectral.zarr", "--encoding", "spectral", *_SERIAL)
    errands.command(store, "export", "arrays", store, made / "maps.npz")
    shutil.rmtree(made)


_ERRANDS: tuple[Errand, ...] = (_verify, _repair, _go_on, _extend, _named, _view, _repair_most, _copy)


def _warm_up(errands: Errands) -> None:
    """Run every errand on a whole store: once to load what is loaded late, and once more, when nothing may be found."""
    originals = sorted((errands.world / "originals").glob("*.zarr")) * 3
    for number, original in enumerate(originals):
        copy = errands.world / "stores" / f"whole-{number}.zarr"
        shutil.copytree(original, copy)
        errands.run(copy, number)
        shutil.rmtree(copy)
        if errands.problems and number >= len(_ERRANDS):
            raise RuntimeError(f"{original.name}: {errands.problems}")


def main(world: Path, megabytes: int) -> None:
    """Answer the parent process."""
    faulthandler.enable()
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("error")
    home = world / "home"
    home.mkdir(exist_ok=True)
    os.environ.update(HOME=str(home), XDG_CACHE_HOME=str(home / "cache"), HF_HUB_OFFLINE="1")
    tempfile.tempdir = str(home)
    os.chdir(home)
    sys.path.append(str(world / CANARY))
    errands = Errands(world)
    _warm_up(errands)
    limit_memory(megabytes)
    print("ready" if errands.canary.sees_reads else "ready, blind", file=answer_to, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        peak_megabytes()
        store, start = Path(asked["store"]), time.process_time()
        before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
        errands.run(store, int(store.stem))
        said = {
            "problems": errands.problems,
            "refusals": errands.ended,
            "opened": "view 0" in errands.ended or any(word.endswith(" 0") for word in errands.ended),
            "answers": len(errands.ended),
            "seconds": time.process_time() - start,
            "megabytes": peak_megabytes() - before,
        }
        print(json.dumps(said), file=answer_to, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
