"""Asks a store for all that a reader can give, and notes what is no answer. Run as a program it does so for a parent process.

python hostile_probe.py ORIGINALS MEGABYTES    reads what to look at from stdin, a JSON object a line; answers on stdout
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from commands import run_here

from labelstore import LabelMapReader
from labelstore.agreement import label_agreement
from labelstore.errors import LabelStoreError
from labelstore.schema import Status
from labelstore.summary import count_rows, failures_of

_BOXES = ((0.0, 0.0, 1.0, 1.0), (0.6, 0.1, 0.2, 0.9))
_MAY_DIFFER = re.compile(r"open|status|repr|agreement|failures|maps of|labels of")
"""Answers that speak of the store's place, or of all rows that are there: what is served of each is asked one by one."""
_LONGEST_MESSAGE = 2000
_MANY = 150
"""Rows of a batch that is shared out among threads."""


class Probe:
    """What a store has answered, by question, and what it ought not to have done."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.problems: list[str] = []
        self.refusals: set[str] = set()

    def ask(self, question: str, call: Callable[[], Any]) -> Any:
        """Note the answer; an error that labelstore raises on purpose is none, any other a problem."""
        try:
            found = call()
        except LabelStoreError as error:
            self.refusals.add(type(error).__name__)
            if len(str(error)) > _LONGEST_MESSAGE:
                self.problems.append(f"{question}: a message of {len(str(error))} characters")
            return None
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-4:])[-1500:]
            self.problems.append(f"{question}: {type(error).__name__}: {str(error)[:200]}\n{where}")
            return None
        self.answers[question] = _digest(found)
        return found

    def expect(self, question: str, good: bool) -> None:
        if not good:
            self.problems.append(f"{question}: not well-formed")


def probe(store: Path, scratch: Path) -> Probe:
    """Ask everything. ``scratch`` is for the reader's cache."""
    found = Probe()
    usual = found.ask("open", lambda: LabelMapReader(store))
    if usual is None:
        _command(found, "info", store)
        return found
    ids = _small_things(found, usual, str(store))
    ways: dict[str, Callable[[], LabelMapReader]] = {
        "": lambda: usual,
        "NumPy ": lambda: LabelMapReader(store, compiled=False),
        "threads ": lambda: LabelMapReader(store, threads=2),
        "cached ": lambda: LabelMapReader(store, cache=scratch),
        "cached again ": lambda: LabelMapReader(store, cache=scratch),
        "pickled ": lambda: pickle.loads(pickle.dumps(usual)),
    }
    for way, make in ways.items():
        reader = found.ask(f"{way}open", make)
        if reader is not None:
            _labels(found, reader, way, ids)
    key = next(iter(ids), "none")
    for arguments in (("info", store), ("info", store, "--json"), ("inspect", key, "--store", store)):
        _command(found, *arguments)
    return found


def _small_things(found: Probe, reader: Any, store: str) -> list[str]:
    rows = _some_rows(len(reader))
    found.ask("len", lambda: len(reader))
    found.ask("repr", lambda: repr(reader))
    for name in ("num_classes", "top_k", "map_size", "class_names"):
        found.ask(name, lambda name=name: getattr(reader, name))
    ids = [found.ask(f"id of {row}", lambda row=row: reader.ids[row]) for row in rows]
    found.ask("repr of ids", lambda: repr(reader.ids))
    found.ask("unknown", lambda: reader.ids.row("folder/nobody.png"))
    for row, key in zip(rows, ids, strict=True):
        if key is not None:
            found.ask(f"knows {key}", lambda key=key: key in reader)
        found.ask(f"why {row}", lambda row=row: reader.error(row))
        found.ask(f"content of {row}", lambda row=row: reader.image_crc32(row))
    targets = found.ask("targets", lambda: reader.targets)
    found.expect("targets", targets is None or targets.shape == (len(reader),))
    status = found.ask("status", reader.status)
    found.expect("status", status is None or (status.shape == (len(reader),) and status.max(initial=0) <= max(Status)))
    found.ask("agreement", lambda: label_agreement(reader))
    found.ask("counts", lambda: count_rows(reader, store))
    found.ask("failures", lambda: failures_of(reader, 10))
    found.answers.pop("counts", None)  # bytes on the disk are not the store's word
    return [key for key in ids if key]


def _labels(found: Probe, reader: Any, way: str, ids: list[str]) -> None:
    rows = _some_rows(len(reader))
    if not _fits(reader, 64):  # large maps: two will do
        rows, ids = rows[:2], []
    for key in [*rows, *ids]:
        one = found.ask(f"{way}map of {key}", lambda key=key: reader[key])
        found.expect(f"{way}map of {key}", one is None or _is_map(one, reader, ()))
        soft = found.ask(f"{way}label of {key}", lambda key=key: reader.pool([key] * 2, _BOXES))
        found.expect(f"{way}label of {key}", soft is None or _is_label(soft, reader))
    done = [row for row in rows if found.answers.get(f"{way}map of {row}") is not None]
    for keys in (done, done * (_MANY // max(len(done), 1))):
        if not (keys and _fits(reader, len(keys))):
            continue
        many = found.ask(f"{way}maps of {_digest(keys)}", lambda keys=keys: reader.read(keys))
        found.expect(f"{way}maps", many is None or _is_map(many, reader, (len(keys),)))
        found.ask(f"{way}packed maps of {_digest(keys)}", lambda keys=keys: reader.read_packed(keys))
        soft = found.ask(f"{way}labels of {_digest(keys)}", lambda keys=keys: reader.pool(keys, [_BOXES[1]] * len(keys), 0.5))
        found.expect(f"{way}labels", soft is None or _is_label(soft, reader))


def _command(found: Probe, *arguments: Any) -> None:
    result = found.ask(f"command {arguments[0]}", lambda: run_here(*arguments))
    found.answers.pop(f"command {arguments[0]}", None)  # what it prints has the place of the store in it
    found.expect(f"command {arguments[0]}", result is None or result.code in (0, 1))


def _some_rows(count: int) -> list[int]:
    return sorted({*range(min(count, 14)), *range(max(count - 2, 0), count)})


def _fits(reader: Any, count: int) -> bool:
    """Whether a batch is not itself more than anybody would ask for."""
    height, width = reader.map_size
    return count * (max(reader.top_k, 8) * height * width + reader.num_classes) < 2**24


def _is_map(found: Any, reader: Any, batch: tuple[int, ...]) -> bool:
    shape = (*batch, reader.top_k, *reader.map_size)
    same = found.classes.shape == found.scores.shape == shape
    return bool(
        same and np.isfinite(found.scores).all() and ((found.classes < reader.num_classes) | (found.classes == 65535)).all()
    )


def _is_label(soft: Any, reader: Any) -> bool:
    return bool(soft.shape[1:] == (reader.num_classes,) and (soft >= 0).all() and np.allclose(soft.sum(axis=1), 1, atol=1e-3))


def _digest(found: Any) -> Any:
    """A small thing that is the same for the same answer."""
    if isinstance(found, np.ndarray):
        return [*found.shape, zlib.crc32(np.ascontiguousarray(found).tobytes())]
    if isinstance(found, dict):
        return {key: _digest(value) for key, value in found.items()}
    if hasattr(found, "scores"):
        return [_digest(found.classes), _digest(found.scores)]
    text = found if isinstance(found, str) else repr(found)
    return text if len(text) < 60 and text.isascii() else zlib.crc32(text.encode(errors="surrogatepass"))


def differences(answers: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Say which answers are not those of the store that a hostile one was made of. A row may have become pending."""
    return [
        f"served {question}: expected {expected.get(question)}, got {answer}"
        for question, answer in answers.items()
        if not _MAY_DIFFER.search(question) and expected.get(question) != answer
    ]


def peak_megabytes() -> int:
    """The most memory that this process has had, since it was last asked, in MB."""
    found = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    Path("/proc/self/clear_refs").write_text("5")
    return int(found) >> 10


def limit_memory(megabytes: int) -> None:
    used = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) << 10
    most = used + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(originals: Path, megabytes: int) -> None:
    faulthandler.enable()
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("error")
    expected = {}
    for original in _whole(originals):
        scratch = originals / "cache"
        expected[original.name] = probe(original, scratch).answers
        shutil.rmtree(scratch)
    limit_memory(megabytes)
    print("ready", file=answer_to, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        before, start = peak_megabytes(), time.process_time()
        before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
        found = probe(Path(asked["store"]), Path(asked["scratch"]))
        if asked["honest"]:
            found.problems += differences(found.answers, expected[asked["original"]])
        said = {
            "problems": found.problems,
            "refusals": sorted(found.refusals),
            "opened": "open" in found.answers,
            "answers": len(found.answers),
            "seconds": time.process_time() - start,
            "megabytes": peak_megabytes() - before,
        }
        print(json.dumps(said), file=answer_to, flush=True)


def _whole(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("*.zarr"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
