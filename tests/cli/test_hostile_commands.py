"""Commands on hostile stores: none dies, prints what a terminal obeys, or touches what is none of the store's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import hostile_trespasses
import pytest
from commands import SUPPORT, environment
from hostile_cases import make_case
from hostile_jail import Jail
from hostile_outside import ALL_CHANGES, CHANGES
from hostile_world import annotated_originals, lay_out_world

CASES = 24
SECONDS = 30.0
_NOTICED = {
    "read_behind_a_link": "canary/secret.txt: touched",
    "read_beside_a_link": "canary/c.0: touched",
    "list_a_folder": "canary: touched",
    "write_behind_a_link": "canary/secret.txt: touched",
    "remove_from_the_canary": "canary/c.9.partial: touched",
    "remove_a_stranger": "gone: ",
    "write_beside_the_store": "beside the store: out",
    "ask_a_server": "asked a server 1 times",
    "open_outside": "opens /etc/hostname",
    "run_a_program": "subprocess.Popen",
    "run_the_canarys_program": "ran the canary's program",
    "end_in_another_way": "exit code 2",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("world")
    lay_out_world(found)
    annotated_originals(found)
    return found


def test_commands_on_hostile_stores_touch_nothing_else(world):
    """`make fuzz` does so with 10,000 of them; each is made anew by its number."""
    originals = sorted((world / "originals").glob("*.zarr"))
    with Jail(world, world / "stores", "hostile_errands.py", seconds=SECONDS) as jail:
        for number in range(CASES):
            case = make_case(number, originals, world / "stores", ALL_CHANGES)
            verdict = jail.try_case(case)
            assert not verdict.problems, (case, verdict.problems[0])
            assert verdict.answers
            shutil.rmtree(case.store)


def test_what_no_command_may_do_is_noticed(world):
    script = SUPPORT / "hostile_trespasses.py"
    done = subprocess.run(
        [sys.executable, script, world], capture_output=True, text=True, timeout=300, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("nothing") == []
    assert found.keys() == _NOTICED.keys() == {errand.__name__ for errand in hostile_trespasses.TRESPASSES}
    unnoticed = {name: found[name] for name, words in _NOTICED.items() if not any(words in problem for problem in found[name])}
    assert unnoticed == {}


@pytest.mark.parametrize("change", dict.fromkeys(CHANGES), ids=lambda change: change.__name__)
def test_every_change_leads_outside(change, world):
    (world / "port").write_text("1")
    original = world / "originals" / "topk.zarr"
    cases = [make_case(number, [original], world / "stores", [change]) for number in range(900, 904)]
    try:
        assert not any("not possible" in case.changes[0] for case in cases)
        assert any(_listing(case.store) != _listing(original) for case in cases)
    finally:
        for case in cases:
            shutil.rmtree(case.store)


def _listing(store: Path) -> dict[str, bytes | str]:
    """Contents of small files; of all else only the kind, and where links lead."""
    return {path.relative_to(store).as_posix(): _described(path) for path in store.rglob("*")}


def _described(path: Path) -> bytes | str:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() and path.stat().st_size < 2**24 else f"{path.lstat().st_mode:o}"
