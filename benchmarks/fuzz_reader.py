"""Reads hostile stores: whole ones, mutilated at random, their checksums put right or not.

Every store is opened in a process with bounded memory, in every way that there is, and asked for everything that a reader
gives. What must not happen: an error that is none of labelstore's, a process that dies, more than 10 seconds or 2 GB a store,
a soft label that is none; and, where a checksum is left that does not fit, anything other than what the original serves.

python benchmarks/fuzz_reader.py [--cases 10000] [--seconds 600] [--seed N] [--json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzzing import MakeCase, main
from hostile_cases import make_case
from hostile_jail import Jail
from hostile_stores import make_originals


def lay_out(folder: Path) -> tuple[MakeCase, Jail]:
    """Make the stores that hostile ones are made of."""
    originals, scratch = folder / "originals", folder / "scratch"
    originals.mkdir()
    scratch.mkdir()
    whole = make_originals(originals)
    return lambda number: make_case(number, whole, scratch), Jail(originals, scratch)


if __name__ == "__main__":
    sys.exit(main(__doc__, lay_out))
