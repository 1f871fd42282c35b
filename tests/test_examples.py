"""The examples run as they stand, and learn."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("script", "needs", "options"),
    [
        ("train.py", "torch", ["--start", "fork"]),
        ("train.py", "torch", ["--start", "spawn"]),
        ("train_timm.py", "timm", []),
        ("train_lightning.py", "lightning", []),
        ("train_jax.py", "jax", []),
    ],
)
def test_an_example_trains(script, needs, options, picture_store, pictures):
    if find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: `make examples` runs this one")
    command = [sys.executable, str(ROOT / "examples" / script), str(picture_store), str(pictures), *options]
    out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert out.returncode == 0, out.stderr
    losses = [float(line.rpartition(" ")[2]) for line in out.stdout.splitlines() if line.startswith("epoch ")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_the_jax_example_loads_no_torch():
    source = (ROOT / "examples" / "train_jax.py").read_text()
    assert "import torch" not in source
    assert "labelstore.torch" not in source
