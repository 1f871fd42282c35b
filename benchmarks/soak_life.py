"""A store whose runs are killed, at random moments and around commits; and what must be true of it after each kill."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from commands import command_line
from damage import flips, served
from folder_events import FolderEvents
from folders import changed, stamps, store_contents
from soak_setups import Command, Local, Processes, Separate, annotate, kill

from labelstore import LabelMapReader, LabelStoreError
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.verifying import verify_store
from labelstore.storage import PARTIAL

ENCODINGS = {
    "topk": ("--encoding", "topk", "--top-k", 3),
    "spectral": ("--encoding", "spectral", "--top-k", 3, "--classes-per-image", 5, "--patterns", 3, "--frequencies", 4),
}
_MOST_RUNS, _GONE_SECONDS, RUN_SECONDS, _HANGS = 8, 30.0, 300.0, 999
_FLIPS_TO_REPAIR = 60
_SHARE_OF_STARTS = 0.4
"""Of the kills at any moment: while a run has not committed anything yet, or may not have."""
_COMMITTING = {("status", "moved"), ("commits", "created"), ("commits", "moved")}
"""What happens when a shard is written: its data comes into its place, its commit is begun, and is there."""
_GIVING_UP = {("commits", "deleted")}
_ENDS = {"worker": 0, "nanny": 0, "scheduler": 1, "client": -9}
"""How the command ends when a process of that kind is killed."""


@dataclass(frozen=True)
class Kill:
    """One that is to happen: where, in what, whom, and whether at a commit (or discard) or at any moment."""

    setup: str
    encoding: str
    kind: str
    aimed: bool


@dataclass
class Original:
    """What an undisturbed run makes."""

    store: Path
    encoding: str
    start_seconds: float
    """Until the first commit."""
    contents: dict[str, bytes]
    truth: np.ndarray


@dataclass
class Outcome:
    """What is counted, and what is wrong."""

    kills: list[Kill] = field(default_factory=list)
    lives: int = 0
    runs: int = 0
    commits: int = 0
    kept: int = 0
    """Committed shards at the kills, added up: all of them were looked at again in the end."""
    written_again: int = 0
    """Shards whose data was in place without a commit, and written again."""
    committed_again: Counter[str] = field(default_factory=Counter)
    """Shards that were committed twice, by set-up: none of them at the moment of a kill."""
    rows_checked: int = 0
    resumed_after: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Life:
    """One store, and what must be true of it."""

    def __init__(self, images: Path, folder: Path, original: Original, rng: random.Random, outcome: Outcome) -> None:
        self._images, self._folder, self._original, self._rng, self._outcome = images, folder, original, rng, outcome
        self._store = folder / "labels.zarr"
        self._runs = 0
        self._kept: list[dict[str, tuple[int, int]]] = []

    def require(self, true: bool, problem: str) -> None:
        """Note a problem unless something is true."""
        if not true:
            self._outcome.problems.append(f"{self._folder.name} ({self._original.encoding}): {problem}")
            print(f"\n{self._outcome.problems[-1]}", file=sys.stderr)

    def go_through(self, setup: Local | Separate, kills: Sequence[Kill]) -> list[Kill]:
        """See `Soak.live`."""
        waiting = deque(kills)
        with FolderEvents(self._store, ("commits", "status")) as events:
            for number in range(_MOST_RUNS):
                processes, start = Processes(self._folder), time.monotonic()
                run = self._annotate(processes, *setup.options)
                allowed = self._strike(setup, run, events, waiting)
                success = self._end(processes, run, allowed, quiet=setup.alone)
                commits = (event.at for event in events.so_far() if event.is_in_place and event.folder == "commits")
                first = next((at for at in commits if at > start), None)
                if number and setup.alone and first is not None:
                    self._outcome.resumed_after.append(first - start)
                if success:
                    break
            self._check_finished()
            self._count(setup, events)
        return list(waiting)

    def give_up(self, how: str) -> None:
        """See `Soak.give_up`."""
        untouched = self._damage() if how == "repair" else {}
        processes = Processes(self._folder)
        with FolderEvents(self._store, ("commits",)) as events:
            events.ready()
            run = self._repair(processes) if how == "repair" else self._annotate(processes, *Local.options, how)
            goal = self._rng.randint(1, 6)
            while not events.wait_until(goal, _GIVING_UP, 0.5) and run.poll() is None:
                pass
            time.sleep(self._rng.uniform(0, 0.002))
            kill(run.pid)
        self._end(processes, run, {-9, 0}, quiet=how != "repair")
        if run.returncode == -9:
            self._outcome.kills.append(Kill(how, self._original.encoding, "client", aimed=True))
        if how == "repair":
            self._end(processes, self._repair(processes), {0}, quiet=True)
            self._kept.append(untouched)
        else:
            self._keep()
        self._end(processes, self._annotate(processes, *Local.options), {0}, quiet=True)
        self._check_finished()

    def _damage(self) -> dict[str, tuple[int, int]]:
        """Flip a bit in many files; return the stamps of the shards that have none of them."""
        done = [damage for damage in flips(self._store, _FLIPS_TO_REPAIR, self._rng) if _shard_of(damage.key)]
        for damage in done:
            damage.do(self._store)
        touched = {_shard_of(damage.key) for damage in done}
        return {key: stamp for key, stamp in stamps(self._store).items() if _shard_of(key) and _shard_of(key) not in touched}

    def _repair(self, processes: Processes) -> Command:
        self._runs += 1
        return processes.start(*command_line("repair", self._store), log=f"run-{self._runs - 1}.log")

    def _annotate(self, processes: Processes, *options: object) -> Command:
        log = f"run-{self._runs}.log"
        self._runs += 1
        self._outcome.runs += 1
        return annotate(processes, self._images, self._store, *options_of(self._original.encoding), *options, log=log)

    def _strike(self, setup: Local | Separate, run: Command, events: FolderEvents, waiting: deque[Kill]) -> set[int]:
        """Kill, in the order of what is waiting, until the run is over; return how it may end."""
        while waiting and run.poll() is None:
            blow = waiting[0]
            if not self._wait_for_moment(blow, run, events):
                break
            victims = setup.victims(blow.kind, run)
            if not victims:  # a worker that is being started again
                time.sleep(0.1)
                continue
            victim = self._rng.choice(victims)
            if run.poll() is not None or not kill(victim):
                break
            waiting.popleft()
            self._outcome.kills.append(blow)
            self._keep()
            setup.mend(blow.kind, victim, leave_old=self._rng.random() < 0.5)
            if _ENDS[blow.kind]:
                return {_ENDS[blow.kind], 0}  # 0: all was done by then, as will be seen
        return {0}

    def _wait_for_moment(self, blow: Kill, run: Command, events: FolderEvents) -> bool:
        """Wait for the moment of a kill; return False if the run is over before."""
        if not blow.aimed and self._rng.random() < _SHARE_OF_STARTS:
            count, delay = 0, self._rng.uniform(0, self._original.start_seconds)
        elif not blow.aimed:
            count, delay = self._rng.randint(0, 90), self._rng.uniform(0, 0.5)
        else:
            count, delay = self._rng.randint(1, 60), self._rng.choice((0, self._rng.uniform(0, 0.02)))
        goal, end = events.count(_COMMITTING) + count, time.monotonic() + RUN_SECONDS
        while not events.wait_until(goal, _COMMITTING, 0.5):
            if run.poll() is not None or time.monotonic() > end:
                return False
        time.sleep(delay)
        return run.poll() is None

    def _keep(self) -> None:
        """Remember the files of the shards that are committed now: nobody may touch them any more."""
        committed = {_shard_of(file.name) for file in (self._store / "commits").glob("c.*")} - {""}
        found = stamps(self._store) if committed else {}
        self._kept.append({key: stamp for key, stamp in found.items() if _shard_of(key) in committed})
        self._outcome.kept += len(committed)

    def _end(self, processes: Processes, run: Command, allowed: set[int], *, quiet: bool) -> bool:
        """Wait for a command's end, and look at how it has ended and what it leaves; return whether it was a success.

        ``quiet``: whether nobody else can be writing to the store, or have damaged it.
        """
        try:
            code = run.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            code = _HANGS
        said = (self._folder / f"run-{self._runs - 1}.log").read_text()
        self.require(code in allowed, f"exit code {code}, expected one of {sorted(allowed)}:\n{said}")
        self.require("Traceback" not in said, f"a traceback:\n{said}")
        self.require(code != 1 or said.count("Error: ") == 1, f"not one message:\n{said}")
        left = processes.wait_until_gone(_GONE_SECONDS)
        self.require(not left, f"processes left: {[' '.join(process.cmdline()) for process in left]}")
        processes.end_all()
        self._check_rows(quiet=quiet)
        return code == 0

    def _check_rows(self, *, quiet: bool) -> None:
        """A reader serves the right labels or none; of all committed shards where nobody writes."""
        try:
            rows = served(self._store, self._original.truth) or []
            status = LabelMapReader(self._store).status() if rows else np.zeros(0)
        except AssertionError as error:
            self.require(False, f"wrong labels: {error}")
            return
        except LabelStoreError as error:
            self.require(False, f"a store that was read a moment ago: {error}")
            return
        self._outcome.rows_checked += len(rows)
        if quiet:
            kept = {int(_shard_of(key)) for known in self._kept[-1:] for key in known}
            want = {row for row in range(len(self._original.truth)) if row // 4 in kept and row in self._whole_rows()}
            self.require(want <= set(rows), f"rows lost: {sorted(want - set(rows))}")
            self.require(int((status == 1).sum()) == len(rows), "rows that are done and not served")

    def _whole_rows(self) -> set[int]:
        return set(np.flatnonzero(~np.isnan(self._original.truth).any(axis=(1, 2))).tolist())

    def _check_finished(self) -> None:
        """The store is the one that an undisturbed run makes, and what was committed once was never touched again."""
        found, want = store_contents(self._store), self._original.contents
        other = sorted(key for key in found.keys() | want.keys() if found.get(key) != want.get(key))
        self.require(not other, f"files that differ from an undisturbed run's: {other}")
        verified = verify_store(str(self._store), 1, Observer())
        self.require(verified.whole, f"verify: {verified.problems[:5]}, {dict(verified.rows)}")
        now = stamps(self._store)
        for known in self._kept:
            touched = changed(known, {key: stamp for key, stamp in now.items() if key in known})
            self.require(not touched, f"committed files that were touched again: {sorted(touched)}")

    def _count(self, setup: Local | Separate, events: FolderEvents) -> None:
        placed = [event for event in events.so_far() if event.is_in_place]
        commits = Counter(event.name for event in placed if event.folder == "commits")
        data = Counter(event.name for event in placed if event.folder == "status")
        self._outcome.commits += commits.total()
        self._outcome.committed_again[setup.name] += commits.total() - len(commits)
        self._outcome.written_again += data.total() - len(data)


def _shard_of(key: str) -> str:
    """The shard of a file by its key, in digits; '' for metadata and files that are being written."""
    name = key.rsplit("/", 1)[-1]
    return name.split(".")[1] if name.startswith("c.") and not name.endswith(PARTIAL) else ""


def options_of(encoding: str) -> tuple[object, ...]:
    return ("--model", "unruly_annotators:slow", "--shard-size", 4, *ENCODINGS[encoding])
