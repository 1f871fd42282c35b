"""Writes the exact versions that the image installs, from setup.cfg's lower bounds: the newest that pip finds today.

    python3.11 docker/lock.py

To be run with the Python version of the image. Nothing is installed. The files that it writes hold every package, so that the
image's steps need no resolver (`pip install --no-deps`); what comes with torch for CUDA is kept apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXTRAS = "demo,fast,http,metrics,parquet,s3,timm"
"""What the image has of setup.cfg's extras; `tests/test_docker.py` holds the files to it."""
TORCH, CUDA = ("torch", "torchvision"), ("cuda-", "nvidia-", "triton")
HEAD = "# Written by docker/lock.py: see there.\n"


def main() -> None:
    """Ask pip what it would install, and write it down."""
    found = resolve(f"{HERE.parent}[{EXTRAS}]")
    torch = {name: found.pop(name) for name in TORCH}
    cuda = {name: found.pop(name) for name in list(found) if name.startswith(CUDA)}
    write("requirements.txt", found)
    write("requirements-cpu.txt", torch)  # of builds without CUDA: from the index that the Dockerfile asks for
    write("requirements-cuda.txt", {**torch, **cuda})


def resolve(*wanted: str) -> dict[str, str]:
    """Return the version of every package that would be installed into an empty environment, by name."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "install", *options, *wanted]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    packages = [entry["metadata"] for entry in json.loads(done.stdout)["install"]]
    found = {package["name"].lower().replace("_", "-"): package["version"] for package in packages}
    del found["labelstore"]
    return found


def write(name: str, versions: dict[str, str]) -> None:
    """Write a file of requirements."""
    lines = [f"{package}=={version}\n" for package, version in sorted(versions.items())]
    (HERE / name).write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
