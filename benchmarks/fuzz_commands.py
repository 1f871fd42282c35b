"""Runs commands on hostile stores: verify, repair, annotate (going on, extending), info, inspect and view.

Stores are mutilated as for fuzz_reader.py, and given ways out: links, names of programs and of servers. A command may refuse a
store. It may not die, hang, print control characters, touch a folder beside the store or files that are none of a store's, run
a program, or connect to a server.

python benchmarks/fuzz_commands.py [--cases 10000] [--seconds 600] [--seed N] [--json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzzing import MakeCase, main
from hostile_cases import make_case
from hostile_jail import Jail
from hostile_outside import ALL_CHANGES
from hostile_world import annotated_originals, lay_out_world

SECONDS = 30.0
"""For all commands on a store together."""


def lay_out(folder: Path) -> tuple[MakeCase, Jail]:
    """Make the world around the stores."""
    stores, whole = lay_out_world(folder), annotated_originals(folder)
    jail = Jail(folder, stores, "hostile_errands.py", seconds=SECONDS)
    return lambda number: make_case(number, whole, stores, ALL_CHANGES), jail


if __name__ == "__main__":
    sys.exit(main(__doc__, lay_out))
