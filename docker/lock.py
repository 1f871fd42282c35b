"""Writes the exact versions that the image installs, from setup.cfg's lower bounds: the newest that pip finds today.

    python3.11 docker/lock.py [--torch-index INDEX]

To be run with the Python version of the image. Nothing is installed. The files that it writes hold every package, so that the
image's steps need no resolver (`pip install --no-deps`), and the hashes of its wheels on x86_64 and aarch64, so that they
install the bytes that were there today and no others (`--require-hashes`); what comes with torch for CUDA is kept apart. Torch
for the CPU is built elsewhere: its hashes are written if its index is named, else its version alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXTRAS = "demo,fast,http,metrics,parquet,s3,timm,view"
"""What the image has of setup.cfg's extras; `tests/test_docker.py` holds the files to it."""
TORCH, CUDA = ("torch", "torchvision"), ("cuda-", "nvidia-", "triton")
HEAD = "# Written by docker/lock.py: see there.\n"
MACHINES = ("x86_64", "aarch64")
GLIBC = (*(f"manylinux_2_{minor}" for minor in range(36, 4, -1)), "manylinux2014", "manylinux2010", "manylinux1", "linux")
"""Tags of wheels that run in the image, the newest first: pip takes the first that there is."""


def main() -> None:
    """Ask pip what it would install, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-index", metavar="INDEX", help="of PyTorch's builds for the CPU, for their hashes")
    index = parser.parse_args().torch_index
    found = resolve(f"{HERE.parent}[{EXTRAS}]")
    hashes = find_hashes(found)
    torch = {name: found.pop(name) for name in TORCH}
    cuda = {name: found.pop(name) for name in list(found) if name.startswith(CUDA)}
    write("requirements.txt", found, hashes)
    write("requirements-cpu.txt", torch, find_hashes(torch, "--index-url", index) if index else {})
    write("requirements-cuda.txt", {**torch, **cuda}, hashes)


def resolve(*wanted: str) -> dict[str, str]:
    """Return the version of every package that would be installed into an empty environment, by name."""
    found = {name(entry): entry["metadata"]["version"] for entry in report(*wanted)}
    del found["labelstore"]
    return found


def find_hashes(versions: Mapping[str, str], *options: str) -> dict[str, set[str]]:
    """Return the SHA-256 of the wheels that the image's Python would install of each package, one for each kind of machine."""
    found: dict[str, set[str]] = defaultdict(set)
    pins = [f"{package}=={version}" for package, version in versions.items()]
    for machine in MACHINES:
        tags = [f"--platform={tag}_{machine}" for tag in GLIBC]
        with tempfile.TemporaryDirectory() as folder:
            nowhere = ["--target", folder, "--no-deps", "--only-binary=:all:"]
            for entry in report(*options, *tags, *nowhere, *pins):
                found[name(entry)].add(entry["download_info"]["archive_info"]["hashes"]["sha256"])
    return dict(found)


def report(*arguments: str) -> list[dict[str, Any]]:
    """Return what pip says that it would install into an empty environment."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return found


def name(entry: Mapping[str, Any]) -> str:
    """Return the name by which a requirement asks for a package of pip's report."""
    return str(entry["metadata"]["name"]).lower().replace("_", "-")


def write(file: str, versions: Mapping[str, str], hashes: Mapping[str, Iterable[str]]) -> None:
    """Write a file of requirements."""
    lines = []
    for package, version in sorted(versions.items()):
        ends = [f"--hash=sha256:{value}" for value in sorted(hashes.get(package, ()))]
        lines.append(" \\\n    ".join([f"{package}=={version}", *ends]) + "\n")
    (HERE / file).write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
