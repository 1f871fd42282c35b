"""Workers that were cut off and come back: what they write over a committed shard is never taken for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from commands import environment
from folders import HALF
from runs import SERIAL

from labelstore import DamagedError, LabelMapReader
from labelstore.encodings import committed_arrays
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.plan import JobSpec, ShardSpec, TaskSpec
from labelstore.pipelines.records import recorded_annotators
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.shard import annotate_shards
from labelstore.pipelines.sources import list_images
from labelstore.pipelines.verifying import verify_store
from labelstore.storage import open_source

SHARD = 2
LATE = """
import os
import sys
from pathlib import Path
from test_late_writers import make_shard

stop_at = int(sys.argv.pop())
plain, calls = os.replace, []

def replace(name, target, **where):
    if not where:  # none of the store's
        return plain(name, target)
    calls.append(target)
    if len(calls) == 1:
        print("about to rename", flush=True)
        sys.stdin.readline()
    if len(calls) > stop_at:
        print("stopped", flush=True)
        sys.stdin.readline()
    return plain(name, target, **where)

os.replace = replace
make_shard(*map(Path, sys.argv[1:]))
"""


def make_shard(images: Path, store: Path) -> None:
    """What a worker does."""
    info = open_source(store)[1]
    annotators = recorded_annotators(str(store), info, ("unruly_annotators:restless",))
    job = JobSpec(uuid.uuid4().hex, str(store), annotators, 4, "cpu", 1, 1)
    part = list_images(images).part(info.shard_rows(SHARD))
    list(annotate_shards(TaskSpec(job, (ShardSpec(SHARD, part),))))


def make(images: Path, store: Path, encoding: str) -> None:
    settings = Settings(model="unruly_annotators:restless", encoding=encoding, top_k=3)
    annotate(images, str(store), settings, SERIAL, Observer())


def shard_files(store: Path, shard: int) -> list[str]:
    return [f"{spec.name}/{spec.file_name(shard)}" for spec in committed_arrays(LabelMapReader(store).info)]


@pytest.fixture(params=["topk", "spectral"])
def two(request, pictures, tmp_path) -> tuple[Path, Path]:
    """A store and what another run of an annotator makes whose logits differ from run to run."""
    for name in ("one", "other"):
        make(pictures, tmp_path / f"{name}.zarr", request.param)
    return tmp_path / "one.zarr", tmp_path / "other.zarr"


def test_the_annotator_does_differ_from_run_to_run(two):
    one, other = (LabelMapReader(store).read(range(21)).scores for store in two)
    assert (one != other).mean() > 0.5


def test_whichever_files_it_writes_over_a_committed_shard_nothing_mixed_is_read(two):
    """Every set of a shard's files, exchanged for those of the other run."""
    one = two[0]
    rows = list(LabelMapReader(one).info.shard_rows(SHARD))
    expected = LabelMapReader(one).read(rows)
    ours, theirs = ({name: (store / name).read_bytes() for name in shard_files(one, SHARD)} for store in two)
    for chosen in range(2 ** len(ours)):
        mixed = {name: theirs[name] if chosen >> place & 1 else ours[name] for place, name in enumerate(ours)}
        for name, data in mixed.items():
            (one / name).write_bytes(data)
        if mixed != ours:
            with pytest.raises(DamagedError, match="not the file that was committed"):
                LabelMapReader(one).read(rows)
        else:
            np.testing.assert_array_equal(LabelMapReader(one).read(rows).scores, expected.scores)


def test_its_files_are_swept_away_by_a_run_that_begins_meanwhile(pictures, two):
    store = two[0]
    (store / "commits" / f"c.{SHARD}.0.0").unlink()
    partial = store / "status" / f"c.{SHARD}.{HALF}"
    partial.write_bytes(b"half")
    annotate(pictures, str(store), Settings("unruly_annotators:restless"), SERIAL, Observer())
    assert not partial.exists()
    assert verify_store(str(store), 1, Observer()).whole


@pytest.mark.parametrize("renames", [0, 2])
def test_a_worker_that_wakes_up_when_another_has_committed_its_shard(pictures, two, tmp_path, renames):
    """A process is stopped before it renames its files, goes on after the other's commit, and is killed before its own."""
    store = two[0]
    (store / "commits" / f"c.{SHARD}.0.0").unlink()
    rows = list(LabelMapReader(store).info.shard_rows(SHARD))
    late = subprocess.Popen(
        [sys.executable, "-c", LATE, pictures, store, str(renames)],
        cwd=Path(__file__).parent,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert late.stdin is not None
    assert late.stdout is not None
    with late:
        assert late.stdout.readline() == "about to rename\n"
        make_shard(pictures, store)
        kept = LabelMapReader(store).read(rows)
        late.stdin.write("go on\n")
        late.stdin.flush()
        assert late.stdout.readline() == "stopped\n"
        late.send_signal(signal.SIGKILL)
    reader = LabelMapReader(store)
    if renames:
        with pytest.raises(DamagedError, match="not the file that was committed"):
            reader.read(rows)
        assert SHARD in {problem.shard for problem in verify_store(str(store), 1, Observer()).problems}
    else:
        np.testing.assert_array_equal(reader.read(rows).scores, kept.scores)
    made = annotate(pictures, str(store), Settings("unruly_annotators:restless"), SERIAL, Observer())
    assert made.new_rows == (4 if renames else 0)
    assert verify_store(str(store), 1, Observer()).whole
