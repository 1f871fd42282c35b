"""The table of families in docs/annotators.md: some of its rows are made here, all of them by the slow test."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
SCRIPT = REPOSITORY / "benchmarks" / "annotator_families.py"
PAGE = REPOSITORY / "docs" / "annotators.md"


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import annotator_families

    return annotator_families


def run(*options: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def cells_by_model(markdown: str) -> dict[str, list[str]]:
    """Of every row that begins with a network's name the other cells."""
    rows = (line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): row[1:] for row in rows}


def test_some_rows_and_a_refusal(tmp_path: Path) -> None:
    chosen = ("timm:resnet10t", "timm:deit_tiny_distilled*", "torchvision:mobilenet_v3_small", "timm:pit_ti_224")
    patterns = [part for name in chosen for part in ("--match", name)]
    done = run(*patterns, "--json", tmp_path / "out.json", "--out", tmp_path / "out.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.md").read_text() == done.stdout
    rows = cells_by_model(done.stdout)
    assert rows["timm:resnet10t"][1:3] == ["224 px", "7x7"]
    assert rows["timm:resnet10t"][-2:] == ["8x8", "15x15"]
    assert rows["timm:deit_tiny_distilled_patch16_224"][-2:] == ["16x16", "no"]
    assert rows["timm:pit_ti_224"][0].startswith("has no per-location head. Tried: ")
    assert "expected a multiple of its patches' 16 px" in done.stdout
    assert "4/4 timm:pit_ti_224: refused" in done.stderr
    found = {family["model"]: family for family in json.loads((tmp_path / "out.json").read_text())}
    linear, rowwise = found["timm:resnet10t"], found["torchvision:mobilenet_v3_small"]
    assert linear["linear_error"] < 1e-5
    assert rowwise["row_error"] < 1e-5 < 1e-3 < rowwise["linear_error"]


def test_rows_of_their_own_are_not_the_page(tmp_path: Path) -> None:
    done = run("--match", "timm:resnet10t", "--update", tmp_path / "page.md")
    assert (done.returncode, "leave --match out" in done.stderr) == (2, True)
    assert "none of" in run("--match", "timm:resnet5").stderr


def test_what_is_not_as_it_is_listed_is_a_problem(families: Any) -> None:
    good = families.Family("timm:resnet10t", True, 5, 224, linear_error=1e-6, row_error=0.5, spread=0.3)
    assert good.problems == []
    assert dataclasses.replace(good, linear_error=0.5, row_error=1e-6).problems == []
    for changes, words in (
        ({"linear_error": 2e-4}, "is off by 0.0002"),
        ({"linear_error": float("nan"), "row_error": float("nan")}, "is off by nan"),
        ({"spread": 1e-3}, "that would hide an error"),
        ({"spread": float("nan")}, "that would hide an error"),
        ({"refusal": "why"}, "is listed as working: why"),
        ({"expected": False}, "is listed as refused, and works"),
    ):
        (problem,) = dataclasses.replace(good, **changes).problems
        assert words in problem
    assert dataclasses.replace(good, expected=False, refusal="why").problems == []


def test_a_problem_is_the_exit_code(families: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(families, "WORKING", ("timm:pit_ti_224",))
    monkeypatch.setattr(families, "REFUSED", ("timm:test_resnet",))
    monkeypatch.setattr(families, "SIZES", ())
    monkeypatch.setattr(sys, "argv", ["annotator_families.py"])
    with pytest.raises(SystemExit) as exited:
        families.main()
    assert exited.value.code == 1
    said = capsys.readouterr().err
    assert "timm:pit_ti_224 is listed as working: " in said
    assert "timm:test_resnet is listed as refused, and works" in said


def test_tables_take_the_place_of_the_old_ones(families: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{families.BEGIN}\n\n| old |\n\n{families.END}\n\nbelow\n")
    for _ in range(2):
        families.update(page, "| new |\n")
        assert page.read_text() == f"above\n\n{families.BEGIN}\n\n| new |\n\n{families.END}\n\nbelow\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="expected the marks"):
        families.update(page, "| new |\n")


def test_the_page_has_every_network_of_the_list(families: Any) -> None:
    table = PAGE.read_text().partition(families.BEGIN)[2]
    assert cells_by_model(table).keys() == {*families.WORKING, *families.REFUSED}
    of_timm = [name for name in families.WORKING if name.startswith("timm:")]
    assert len(of_timm) >= 20
    assert len(families.WORKING) - len(of_timm) >= 10


@pytest.mark.slow
def test_the_whole_table_is_as_the_page_says(families: Any, tmp_path: Path) -> None:
    done = run("--json", tmp_path / "out.json", timeout=3600)
    assert done.returncode == 0, done.stderr
    found = {family["model"]: family for family in json.loads((tmp_path / "out.json").read_text())}
    assert {name for name, family in found.items() if family["refusal"] is None} == {*families.WORKING}
    assert found[families.PAPERS]["maps"] == {"475": [15, 15]}
    assert [name for name, family in found.items() if family["problems"]] == []
    now, before = (cells_by_model(text.partition(families.BEGIN)[2] or text) for text in (done.stdout, PAGE.read_text()))
    for name in families.WORKING:  # sizes and maps; errors are another machine's
        assert (now[name][:3], now[name][5:]) == (before[name][:3], before[name][5:])
