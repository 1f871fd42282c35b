"""Runs `labelstore` as its users do: in this process for speed, or as the installed command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from labelstore.cli.main import main

SUPPORT = Path(__file__).parent
TOY = ("--workers", "0", "--model", "toy_annotators:colours", "--top-k", "3")
"""Options of annotate for a run without weights, in this process alone."""


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What it printed to stderr, as one line."""
        return " ".join(self.err.split())


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def run_here(*arguments: Any, terminal: bool = False) -> Result:
    """Run the command line in this process, in a pipe that is 80 columns wide; or in a terminal that shows colours.

    All of them: rich keeps a style's codes in the colours that it is printed with first.
    """
    colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor"} if terminal else {}
    out, err = ((_Terminal if terminal else io.TextIOWrapper)(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: Any = None
    with (
        mock.patch.object(sys, "argv", ["labelstore", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": "80", **colours}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Result(code, _text(out), _text(err))


def command_line(*arguments: Any) -> list[str]:
    """The installed command, or the same thing where the project is only importable."""
    script = Path(sysconfig.get_path("scripts"), "labelstore")
    start = [str(script)] if script.exists() else [sys.executable, "-c", "from labelstore.cli.main import main; main()"]
    return [*start, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """An environment in which a new process finds the test annotators and 80 columns."""
    path = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "80", **more}


def run_installed(*arguments: Any, cwd: Path | None = None) -> Result:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        command_line(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer: Any = stream.buffer
    return str(buffer.getvalue().decode())
