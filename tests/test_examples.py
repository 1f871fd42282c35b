"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_plain_loop_trains(picture_store, pictures):
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "train.py"), str(picture_store), str(pictures)]
    out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert out.returncode == 0, out.stderr
    losses = [float(line.rpartition(" ")[2]) for line in out.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
