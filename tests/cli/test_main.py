"""The `labelstore` command as a whole: help, versions, exit codes, interruptions, and what it loads to say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import unruly_annotators
from commands import command_line, environment, run_here, run_installed

import labelstore
from labelstore import LabelMapReader
from labelstore.cli.signals import Signals

SECONDS_TO_WAIT = 90
COMMANDS = ("annotate", "inspect", "info", "models", "evaluate")


def test_help_of_the_installed_command():
    shown = run_installed("--help")
    assert (shown.code, shown.err) == (0, "")
    for word in ("annotate", "inspect", "info", "models", "Usage:"):
        assert word in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_subcommand_has_examples(command):
    for option in ("--help", "-h"):
        shown = run_here(command, option)
        assert shown.code == 0
        assert f"Usage: labelstore {command}" in shown.out
        assert f"labelstore {command} " in shown.out.split("Examples:")[1]
        assert "--json" in shown.out


def test_every_line_of_help_fits_80_columns():
    for arguments in (["--help"], *([command, "--help"] for command in COMMANDS)):
        words = run_here(*arguments).out
        examples = words.partition("Examples:")[2].partition("\n\n")[0]  # commands to copy: not wrapped
        assert [line for line in words.replace(examples, "").splitlines() if len(line) > 80] == []


def test_version():
    assert run_here("--version").out.split()[-1] == labelstore.__version__


def test_no_command_shows_the_help():
    shown = run_here()
    assert shown.code == 2
    assert "annotate" in shown.out + shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["annotat"],
        ["--no-such-option"],
        ["info", "--no-such-option"],
        ["inspect"],
        ["annotate", "x", "--mean", "0.5"],
        ["annotate", "x", "--std", "a,b,c"],
        ["annotate", "x", "--classes", "no-such-file"],
        ["annotate", "x", "--precision", "float16"],
        ["annotate", "--workers", "-1"],
        ["annotate", "--workers", "many"],
        ["annotate", "--worker-timeout", "-1"],
        ["annotate", "--worker-timeout", "soon"],
        ["annotate", "--top-k", "0"],
        ["annotate", "--top-k", "65536"],
        ["annotate", "--image-size", "0"],
        ["annotate", "--batch-size", "0"],
        ["annotate", "--shard-size", "0"],
        ["annotate", "--baseline", "mean"],
        ["annotate", "--exif", "maybe"],
        ["annotate", "--device", "tpu"],
        ["inspect", "x.png", "--top", "0"],
        ["inspect", "x.png", "--images", "no such folder"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_where(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run_here(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert "Usage: labelstore" in shown.err
    assert "Error: " in shown.err
    assert not list(tmp_path.iterdir())


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that a process has loaded after a command."""
    code = f"""
import sys
from labelstore.cli.main import main
sys.argv = {["labelstore", *arguments]!r}
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print("LOADED", *sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    return set(done.stdout.split("LOADED")[1].split())


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_loads_neither_torch_nor_dask(arguments):
    loaded = loaded_by(*arguments)
    assert "click" in loaded
    assert not {"torch", "torchvision", "timm", "dask", "distributed", "zarr"} & loaded


def test_looking_at_a_store_loads_neither_torch_nor_dask_nor_zarr(picture_store):
    heavy = {"torch", "torchvision", "timm", "dask", "distributed", "zarr"}
    assert not heavy & loaded_by("info", str(picture_store))
    assert not heavy & loaded_by("inspect", "red/0.png", "--store", str(picture_store))


def test_a_reader_that_goes_away_leaves_no_traceback(picture_store):
    command = command_line("inspect", "red/0.png", "--store", picture_store, "--json")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    process.stdout.close()
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_terminal_without_unicode_still_gets_its_picture(picture_store):
    command = command_line("inspect", "red/0.png", "--store", picture_store)
    plain = environment(PYTHONIOENCODING="ascii")
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "red" in shown.stdout


# Ctrl-C


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Children heed SIGINT also where the tests were started in the background, by a shell that makes them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def processes_of_session(session: int) -> list[str]:
    """What still runs in a session, by command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((folder / "cmdline").read_text())
        except (OSError, IndexError):  # gone by now
            continue
    return found


def commits_in(store: Path) -> list[Path]:
    """The commits that have their names; one that is still being written has another."""
    return [file for file in store.glob("commits/c.*") if file.suffix != ".partial"]


def wait_until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS_TO_WAIT
    while not true():
        assert time.monotonic() < end, f"waited {SECONDS_TO_WAIT} s until {what}"
        time.sleep(0.02)


KEPT = "What is committed is kept; the same command goes on from there."
CHOSEN = ("--model", "unruly_annotators:slow", "--top-k", "3")


def stopped(images: Path, store: Path, workers: int, *signals: signal.Signals) -> tuple[int, list[str]]:
    """Send signals to a run, and to all of its processes, when a shard is committed; return exit code and what it said.

    None of its processes may be left then.
    """
    command = command_line("annotate", images, "--store", store, "--workers", workers, *CHOSEN)
    with (store.parent / "err").open("w") as err:
        process = subprocess.Popen(
            command,
            env=environment(**{unruly_annotators.SECONDS: "1.5"}),
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
        )
    try:
        wait_until(lambda: commits_in(store) or process.poll() is not None, "a shard is committed")
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(0.5)  # the first is heard before the second is sent
        code = process.wait(SECONDS_TO_WAIT)
        wait_until(lambda: not processes_of_session(process.pid), "no process is left")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = (store.parent / "err").read_text().splitlines()
    shown = [line for line in said if line.startswith("Dask dashboard: http://127.0.0.1:")]
    assert len(shown) == (workers > 0)
    assert all("?token=" in line for line in shown), "without its token the link opens nothing"
    return code, [line for line in said if line and not line.startswith("Dask dashboard")]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds left-over processes in /proc")


@needs_proc
@pytest.mark.parametrize(
    ("workers", "number", "word"),
    [
        (0, signal.SIGINT, "Interrupted"),
        (0, signal.SIGTERM, "Terminated"),
        (2, signal.SIGINT, "Interrupted"),
        pytest.param(2, signal.SIGTERM, "Terminated", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_and_sigterm_keep_what_is_committed_and_leave_no_process(pictures, tmp_path, workers, number, word):
    store = tmp_path / "labels.zarr"
    assert stopped(pictures, store, workers, number) == (128 + number, [f"{word}. {KEPT}"])
    kept = int((LabelMapReader(store).status() == 1).sum())
    assert 4 <= kept < 21
    again = run_here("annotate", pictures, "--store", store, "--workers", 0, *CHOSEN)
    assert again.code == 0
    assert f"This run: {21 - kept} images" in again.out


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_second_signal_ends_the_run_at_once_and_leaves_no_process_either(pictures, tmp_path, number):
    store = tmp_path / "labels.zarr"
    code, said = stopped(pictures, store, 2, signal.SIGINT, number)
    assert (code, said) == (128 + number, [f"Ended at once. {KEPT}"])
    assert (LabelMapReader(store).status() == 1).sum() >= 4


def test_signals_that_were_ignored_before_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals().heeded():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Signals().heeded():
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
