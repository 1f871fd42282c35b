"""A process that reads hostile stores for us: it may die, hang or be short of memory, and is then replaced."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import environment
from hostile_cases import Case

MEGABYTES = 2048
"""What reading a store may take beyond what the process had before."""
SECONDS = 10.0
_PATIENCE = 6
"""How many times as long a process may take that is kept waiting, by other programs on the same cores or for ever."""
_CASES_A_PROCESS = 1000
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Verdict:
    """How a case ended: ``problems`` are what must not be."""

    problems: tuple[str, ...]
    refusals: tuple[str, ...] = ()
    opened: bool = False
    answers: int = 0
    seconds: float = 0.0
    megabytes: int = 0


@dataclass
class Jail:
    """Tries cases one after the other; a context manager.

    ``script`` is the program that tries a store, ``originals`` its first argument. ``seconds`` are of the processor's time.
    """

    originals: Path
    scratch: Path
    script: str = "hostile_probe.py"
    megabytes: int = MEGABYTES
    seconds: float = SECONDS
    deaths: int = 0
    _process: subprocess.Popen[str] | None = None
    _tried: int = field(default=0)

    def __enter__(self) -> Jail:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def try_case(self, case: Case) -> Verdict:
        """Let the process read a store."""
        if self._process is None or self._tried >= _CASES_A_PROCESS:
            self._end()
            self._start()
        self._tried += 1
        cache = self.scratch / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        asked = {"store": str(case.store), "scratch": str(cache), "honest": case.honest, "original": case.original}
        said = self._exchange(json.dumps(asked), self.seconds)
        if said is None:
            return Verdict((self._autopsy(),))
        found: dict[str, Any] = json.loads(said)
        return Verdict(tuple(found.pop("problems")), tuple(found.pop("refusals")), **found)

    def _start(self) -> None:
        script = Path(__file__).with_name(self.script)
        with (self.scratch / "stderr").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, script, self.originals, str(self.megabytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(),
                text=True,
            )
        self._tried = 0
        if self._exchange("", _START_SECONDS) is None:
            raise RuntimeError(f"cannot read the stores as they are: {self._autopsy()}")

    def _exchange(self, line: str, seconds: float) -> str | None:
        """Send a line, if there is one, and return the line that comes back; None if none does in time."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        if line:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        worked, start = _processor_seconds(process.pid), time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(1.0):
                waited = time.monotonic() - start
                if waited > _PATIENCE * seconds or _processor_seconds(process.pid) - worked > seconds:
                    return None
        return process.stdout.readline() or None

    def _autopsy(self) -> str:
        """End the process, and say what it was at."""
        process = self._process
        assert process is not None
        hung = process.poll() is None and not _ends_within(process, 0.5)
        if hung:
            os.kill(process.pid, signal.SIGABRT)  # its faulthandler says where it is
            _ends_within(process, 5)
        code = process.poll()
        self._end()
        self.deaths += 1
        how = f"no answer within {self.seconds:g} s of work" if hung else f"the process died ({code})"
        return f"{how}:\n{(self.scratch / 'stderr').read_text(errors='replace')[-3000:]}"

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _processor_seconds(pid: int) -> float:
    """What a process has worked, on all cores together; 0 when it is gone."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, IndexError):
        return 0.0
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
