"""What a commit is to the operating system: the calls in their order, as strace sees them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment

from labelstore.encodings import committed_arrays
from labelstore.storage import open_source

GOLDEN = Path(__file__).parent.parent / "golden"
CALLS = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"
WRITE = """
import sys
import numpy as np
from labelstore.pipelines.store import ShardWriter
writer = ShardWriter(sys.argv[1])
arrays = writer.empty_rows(1)
arrays["status"][:] = 2
arrays["errors"][:, 0] = ord("x")
print("ready", flush=True)
writer.write(1, arrays)
"""


@pytest.fixture
def strace() -> str:
    """The program, where it may trace."""
    found = shutil.which("strace")
    if found is None or subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    return found


def traced(strace: str, store: Path, out: Path) -> list[tuple[str, str]]:
    """(call, file below the store) in order; a file that is being written under the name that it will have."""
    command = [strace, "-f", "-y", "-qq", "-o", out, "-e", f"trace={CALLS}", sys.executable, "-c", WRITE, store]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    events = []
    for line in out.read_text().splitlines():
        call = re.search(r"\b(\w+)\(", line)
        paths = re.findall(rf'{re.escape(str(store))}/([^">]+)(?:>, "([^"]+))?', line)
        if call and paths and line.rstrip().endswith("= 0"):
            name = "rename" if call[1].startswith("rename") else call[1].removesuffix("at")
            events.append((name, re.sub(r"\.[0-9a-f]{32}\.partial$", " (partial)", "/".join(filter(None, paths[-1])))))
    return events


@pytest.mark.parametrize("encoding", ["topk", "spectral"])
def test_a_commit_appears_when_all_that_it_seals_is_on_the_disk(strace, tmp_path, encoding):
    store = Path(shutil.copytree(GOLDEN / f"v1-{encoding}.zarr", tmp_path / "labels.zarr"))
    info = open_source(store)[1]
    files = [f"{spec.name}/{spec.file_name(1)}" for spec in committed_arrays(info)]
    commit = "commits/c.1.0.0"
    events = traced(strace, store, tmp_path / "trace")
    folders = [file.split("/")[0] for file in files]
    count = len(files)
    expected_start = [("unlink", commit), ("fsync", "commits"), *(("fsync", f"{file} (partial)") for file in files)]
    assert events[: count + 2] == expected_start
    assert events[count + 2 : 2 * count + 2] == [("rename", file) for file in files]
    assert sorted(events[2 * count + 2 : 3 * count + 2]) == sorted(("fsync", folder) for folder in folders)
    assert events[3 * count + 2 :] == [("fsync", f"{commit} (partial)"), ("rename", commit), ("fsync", "commits")]
