"""The examples run as they stand: those that train learn, those that read get what our reader gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from labelstore import LabelMapReader

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


READING = ROOT / "examples" / "reading"
UNREACHABLE = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "ECONNRESET")
"""What npm says where there is no network."""


def require_read(command: list[str], store: Path) -> None:
    """An example reads the same map as our reader, to the bit."""
    for image_id in ("blue/0.png", "red/6.png"):
        out = subprocess.run([*command, str(store), image_id], capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        found, expected = json.loads(out.stdout), LabelMapReader(store)[image_id]
        np.testing.assert_array_equal(found["classes"], expected.classes)
        np.testing.assert_array_equal(np.array(found["scores"], np.float32), expected.scores)


@pytest.mark.parametrize("library", ["xarray", "tensorstore"])
def test_an_example_reads_what_our_reader_reads(library, picture_store):
    require_read([sys.executable, str(READING / f"with_{library}.py")], picture_store)


def test_the_example_in_javascript_reads_what_our_reader_reads(picture_store, tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    for name in ("with_zarrita.mjs", "package.json"):
        shutil.copy(READING / name, tmp_path)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if any(problem in installed.stderr for problem in UNREACHABLE):
        pytest.skip(f"npm reaches no registry: {installed.stderr[-200:]}")
    assert installed.returncode == 0, installed.stderr
    require_read(["node", str(tmp_path / "with_zarrita.mjs")], picture_store)


@pytest.mark.parametrize("name", ["with_xarray.py", "with_tensorstore.py", "with_zarrita.mjs"])
def test_examples_of_reading_do_without_labelstore(name):
    source = (READING / name).read_text()
    assert "import labelstore" not in source
    assert "from labelstore" not in source
