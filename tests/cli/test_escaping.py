"""What a store says reaches no terminal as a command to it: ids, names of classes, reasons, places, names of annotators."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Result, command_line, environment, run_here
from folders import edit_attributes
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from labelstore.cli.escaping import PeopleConsole, escape_streams, escaped, escaped_json
from labelstore.cli.telling import json_text, tell, warn
from labelstore.pipelines.writer import LabelMapWriter

TRICKS = {
    "title": "\x1b]0;HACKED\x07",
    "clipboard": "\x1b]52;c;SEFDS0VE\x1b\\",
    "link": "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\",
    "up": "\x1b[2A\x1b[2K",
    "c1": "\x9b31m\x9d0;HACKED\x9c",
    "bidi": "\u202egpj\u2066x\u2069",
    "bell": "\x07\x08\x7f",
    "over": "\rHACKED",
}
ALL = "".join(TRICKS.values())
RAW = [*TRICKS.values(), "\x1b]", "\x9b", "\x9d", "\u202e", "\u2066", "\x07", "\x08", "\x7f", "\rHACKED"]
CLASSES = 4


def save(store: Path, *, fail: bool = True) -> Path:
    """A store in which everything that may be a text is full of such sequences; a row for each, one of them failed."""
    ids = sorted(f"{name}{trick}.png" for name, trick in TRICKS.items())
    names = [f"class {number}{ALL}" for number in range(CLASSES)]
    with LabelMapWriter.create(
        str(store),
        ids,
        num_classes=CLASSES,
        map_size=(2, 2),
        top_k=2,
        shard_size=4,
        annotator=f"annotator{ALL}",
        class_names=names,
        images_root=f"/nowhere{ALL}",
    ) as writer:
        for shard in writer.pending():
            with writer.shard(shard) as rows:
                for row in range(len(rows.ids)):
                    if fail and shard == 0 and row == 0:
                        rows.fail(row, f"reason{ALL}")
                        continue
                    classes = np.stack([np.full((2, 2), row % CLASSES), np.full((2, 2), (row + 1) % CLASSES)])
                    rows.put_maps(row, classes[None].astype(np.uint16), np.stack([np.full((2, 2), 5), np.zeros((2, 2))])[None])
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tricks") / "labels.zarr")


def ids_of(store: Path) -> list[str]:
    from labelstore import LabelMapReader

    return list(LabelMapReader(store).ids)


def require_harmless(shown: Result, *, terminal: bool = True) -> None:
    for text in (shown.out, shown.err):
        assert [trick for trick in RAW if trick in text] == []
        assert terminal or "\x1b" not in text


COMMANDS: dict[str, list[Any]] = {
    "info": ["info", "STORE"],
    "inspect": ["inspect", "ID", "--store", "STORE", "--box", "0,0,1,0.5"],
    "inspect what failed": ["inspect", "FAILED", "--store", "STORE"],
    "inspect what is not there": ["inspect", f"other{ALL}", "--store", "STORE"],
    "inspect --save": ["inspect", "ID", "--store", "STORE", "--save", "TMP/x.png"],
    "verify": ["verify", "STORE"],
    "verify --sample": ["verify", "STORE", "--sample", "2"],
    "evaluate": ["evaluate", "STORE", "--labels", "TMP/labels.json"],
    "report": ["report", "STORE", "--out", "TMP/report.html"],
    "export relabel": ["export", "relabel", "STORE", "TMP/pt", "--axes", "yx"],
    "export arrays": ["export", "arrays", "STORE", "TMP/x.npz"],
    "export webdataset": ["export", "webdataset", "STORE", "TMP/tars"],
    "subset": ["subset", "STORE", "TMP/sub.zarr", "--match", "*bidi*"],
    "convert": ["convert", "STORE", "TMP/spectral.zarr", "--encoding", "spectral", "--workers", "0"],
    "merge": ["merge", "STORE", "STORE", "TMP/merged.zarr"],
    "annotate": ["annotate", "TMP", "--store", "STORE", "--workers", "0"],
    "no store": ["info", f"TMP/no{ALL}.zarr"],
    "no images": ["annotate", f"TMP/no{ALL}", "--workers", "0"],
    "no model": ["annotate", "TMP", "--model", f"no{ALL}", "--workers", "0"],
    "wrong usage": ["info", "STORE", f"--no{ALL}"],
    "no command": [f"no{ALL}"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("terminal", [True, False])
def test_no_command_lets_them_through(store: Path, tmp_path: Path, name: str, terminal: bool) -> None:
    ids = ids_of(store)
    (tmp_path / "labels.json").write_text(json.dumps({image_id: [f"class 1{ALL}"] for image_id in ids}))
    places = {"STORE": str(store), "TMP": str(tmp_path), "ID": ids[-1], "FAILED": ids[0]}
    arguments = [str(part) for part in COMMANDS[name]]
    for word, place in places.items():
        arguments = [part.replace(word, place) for part in arguments]
    shown = run_here(*arguments, terminal=terminal)
    assert shown.out + shown.err
    require_harmless(shown, terminal=terminal)


def test_they_are_shown_as_what_they_are(store: Path) -> None:
    shown = run_here("info", store)
    for part in ("\\x1b]0;HACKED", "\\x9b31m", "\\u202egpj", "\\rHACKED"):
        assert part in shown.out.replace("\n", "").replace(" ", "")


def test_a_run_and_a_repair(tmp_path: Path) -> None:
    """Progress, failed rows, the summary; what verify and repair say of damage."""
    images = tmp_path / "images"
    for name, trick in TRICKS.items():
        file = images / f"{name}{trick}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no image")
    made = run_here("annotate", images, "--store", tmp_path / "s.zarr", "--model", "toy_annotators:colours", "--top-k", 3,
                    "--workers", 0, terminal=True)  # fmt: skip
    assert "failed" in made.out + made.err
    require_harmless(made)
    store = save(tmp_path / "labels.zarr")
    (store / "scores" / "c.1.0.0.0").write_bytes(b"damaged")
    (store / f"stranger{ALL.replace('/', '')}").write_bytes(b"")
    for command in (["verify", store], ["repair", store], ["verify", store]):
        shown = run_here(*command, terminal=True)
        assert shown.code == 1 or command[0] == "repair"
        require_harmless(shown)


def test_json_is_exact_and_harmless(store: Path) -> None:
    ids = ids_of(store)
    info = run_here("info", store, "--json", terminal=True)
    require_harmless(info)
    said = json.loads(info.out)
    assert said["annotator"]["name"] == f"annotator{ALL}"
    assert said["failures"] == [{"id": ids[0], "reason": f"reason{ALL}"}]
    inspected = run_here("inspect", ids[-1], "--store", store, "--json", terminal=True)
    require_harmless(inspected)
    assert json.loads(inspected.out)["image_id"] == ids[-1]
    require_harmless(run_here("verify", store, "--json", terminal=True))


def test_the_log_of_a_run_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"x{ALL.replace('/', '')}.png").write_bytes(b"no image")
    shown = run_here("annotate", tmp_path / "images", "--store", tmp_path / "s.zarr", "--model", "toy_annotators:colours",
                     "--workers", 0, "--log-format", "json", terminal=True)  # fmt: skip
    require_harmless(shown)
    assert [json.loads(line)["event"] for line in shown.err.splitlines() if line.startswith("{")]


def test_a_traceback_and_a_warning_are_harmless(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    escape_streams()
    escape_streams()
    sys.stderr.write(warnings.formatwarning(ALL, UserWarning, "x.py", 1))
    sys.excepthook(ValueError, ValueError(ALL), None)
    sys.stderr.writelines([ALL])
    print(ALL)
    shown = capfd.readouterr()
    require_harmless(Result(0, shown.out, shown.err), terminal=False)
    assert "\\x1b]0;HACKED\\x07" in shown.out


@given(st.text())
def test_what_is_escaped_steers_nothing(text: str) -> None:
    found = escaped(text)
    assert all(char in "\n\t" or char >= " " for char in found)
    assert escaped(found) == found
    assert json.loads(json_text(text)) == json.loads(json_text(text, ensure_ascii=False)) == text
    assert escaped(json_text(text, ensure_ascii=False)) == json_text(text, ensure_ascii=False)


def test_harmless_text_stays() -> None:
    text = "Grüße, 猫.jpg\t[bold] 100 % \\x1b 👍🏽 שלום\n"
    assert escaped(text) == escaped_json(text) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_draws_its_own_colours_and_no_others(terminal: bool) -> None:
    out = io.StringIO()
    console = PeopleConsole(file=out, force_terminal=terminal, color_system="truecolor" if terminal else None, width=500)
    warn(console, ALL)
    tell(console, ALL)
    console.print(Text(ALL, style="link http://evil bold"))
    shown = out.getvalue()
    require_harmless(Result(0, shown, ""), terminal=terminal)
    assert ("\x1b[33mWarning:" in shown) is terminal
    assert "\x1b]8" not in shown


def test_the_installed_command_escapes_too(store: Path) -> None:
    import subprocess

    done = subprocess.run(
        command_line("info", store), env=environment(FORCE_COLOR="1"), capture_output=True, text=True, check=True
    )
    require_harmless(Result(0, done.stdout, done.stderr))


def test_a_hand_made_store_with_more_of_them(store: Path, tmp_path: Path) -> None:
    """What labelstore would not write."""
    import shutil

    copy = Path(shutil.copytree(store, tmp_path / "labels.zarr"))
    edit_attributes(
        copy, lambda said: said.update(recipe=ALL, created=ALL, versions={ALL: ALL}, decoder="pillow", encoding=ALL)
    )
    require_harmless(run_here("info", copy, terminal=True))
    edit_attributes(copy, lambda said: said.update(encoding="topk"))
    require_harmless(run_here("info", copy, terminal=True))
