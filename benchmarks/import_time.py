"""How long `import labelstore` takes in a fresh interpreter: the median of several, beside an import of NumPy alone.

python benchmarks/import_time.py [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

GOAL_SECONDS = 0.3


def seconds(module: str) -> float:
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds("labelstore")  # fills the page cache and writes bytecode
    pairs = [(seconds("labelstore"), seconds("numpy")) for _ in range(options.runs)]
    ours, numpy = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import labelstore {ours:.3f} s (goal {GOAL_SECONDS}); NumPy alone {numpy:.3f} s; median of {options.runs}")
    if options.json:
        options.json.write_text(json.dumps({"import_seconds": ours, "numpy_seconds": numpy, "goal": GOAL_SECONDS}, indent=2))


if __name__ == "__main__":
    main()
