"""The plan of a run: shard sizes, what is pending, and that planning needs no engine."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelstore.pipelines.annotators.spec import AnnotatorSpec, EnsembleSpec
from labelstore.pipelines.plan import (
    LEAST_ROWS_A_TASK,
    MOST_ROWS_A_TASK,
    JobSpec,
    ShardReport,
    ShardSpec,
    TaskSpec,
    pending_shards,
    shard_size,
    tasks,
)
from labelstore.pipelines.sources.places import FilePlace, PartPlace

ROWS = st.integers(1, 10_000_000)


def shards(rows: int, size: int) -> int:
    return -(-rows // size)


@given(ROWS)
def test_a_shard_size_is_a_power_of_two_within_bounds(rows):
    size = shard_size(rows)
    assert 4 <= size <= 4096
    assert size & (size - 1) == 0


@given(ROWS)
def test_there_are_64_shards_where_the_rows_allow_it(rows):
    if shards(rows, 4) >= 64:
        assert shards(rows, shard_size(rows)) >= 64
    else:
        assert shard_size(rows) == 4


@given(ROWS)
def test_a_larger_shard_size_would_give_too_few_shards(rows):
    size = shard_size(rows)
    assert size == 4096 or shards(rows, 2 * size) < 64


@given(ROWS, st.integers(0, 1_000_000))
def test_more_rows_never_give_smaller_shards(rows, more):
    assert shard_size(rows + more) >= shard_size(rows)


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (252, 4), (504, 4), (505, 8), (50_000, 512), (1_281_167, 4096)])
def test_known_shard_sizes(rows, size):
    assert shard_size(rows) == size


@given(st.integers(0, 200), st.sets(st.integers(0, 250)))
def test_pending_are_all_shards_but_the_committed_ones_in_order(count, committed):
    pending = pending_shards(count, committed)
    assert pending == sorted(set(range(count)) - committed)


JOB = JobSpec(
    run="1",
    store="labels.zarr",
    annotators=EnsembleSpec((AnnotatorSpec("timm:resnet18", 288),), flip=True),
    batch_size=32,
    device="cpu",
    threads=2,
    decode_threads=4,
)


def part(shard: int) -> ShardSpec:
    return ShardSpec(shard, (FilePlace(f"/images/{shard}.png"),), shard)


@given(st.sets(st.integers(0, 3000)), st.integers(2, 12).map(lambda power: 2**power), st.integers(0, 64))
def test_tasks_hold_every_pending_shard_once_in_order_and_get_shorter(pending, size, workers):
    made = list(tasks(JOB, sorted(pending), size, workers, part))
    assert [spec for task in made for spec in task.shards] == list(map(part, sorted(pending)))
    counts = [len(task.shards) for task in made]
    assert counts == sorted(counts, reverse=True)
    assert all(count == 1 or count * size <= MOST_ROWS_A_TASK["cpu"] for count in counts)


@pytest.mark.parametrize("workers", [2, 8])
def test_no_worker_is_left_with_much_at_the_end(workers):
    made = list(tasks(JOB, range(128), 8, workers, part))
    assert len(made) > 2 * workers
    assert max(8 * len(task.shards) for task in made[-workers:]) == LEAST_ROWS_A_TASK


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_gets_tasks_that_are_as_long_as_they_may_be(workers):
    assert [len(task.shards) for task in tasks(JOB, range(200), 8, workers, part)] == [64, 64, 64, 8]
    on_a_gpu = tasks(replace(JOB, device="cuda"), range(1200), 8, workers, part)
    assert [8 * len(task.shards) for task in on_a_gpu] == [4096, 4096, 1408]


def test_specs_and_reports_can_travel():
    shard = ShardSpec(3, (FilePlace("/a.png"), PartPlace("b.tar", "b.png", 512, 3)))
    for thing in (shard, TaskSpec(JOB, (shard,)), ShardReport(3, 4, (("a.png", "the file is empty"),), {"write": 0.5})):
        assert pickle.loads(pickle.dumps(thing)) == thing
        with pytest.raises(AttributeError):
            thing.shard = 4


def test_planning_loads_no_engine():
    code = "import sys, labelstore.pipelines.plan; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "labelstore" in loaded
    assert not {"dask", "distributed", "zarr", "torch", "click"} & set(loaded)
