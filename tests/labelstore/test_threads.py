"""Work in parts: every place once, whatever the threads; errors reach the caller and no thread is left."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from labelstore import threads as module
from labelstore.threads import in_parts, usable_cores, usual_threads


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 128, 129, 1000])
def test_every_place_once(threads, count):
    seen: list[int] = []
    by: set[int] = set()

    def work(part: slice) -> None:
        seen.extend(range(count)[part])
        by.add(threading.get_ident())

    before = threading.active_count()
    in_parts(work, count, threads)
    assert sorted(seen) == list(range(count))
    assert 1 <= len(by) <= max(min(threads, count // 64), 1)
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", [0, 150])
def test_errors_of_any_part_are_raised_when_all_are_done(bad):
    done: list[slice] = []

    def work(part: slice) -> None:
        if part.start <= bad < part.stop:
            raise ValueError("bad part")
        done.append(part)

    with pytest.raises(ValueError, match="bad part"):
        in_parts(work, 200, 3)
    assert len(done) == 2


def _tell(results) -> None:
    results.put(usual_threads())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_use_one_thread(method):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=_tell, args=(results,))
    child.start()
    assert results.get(timeout=60) == 1
    child.join()
    assert usual_threads() >= 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 12),
        ({"cpu.max": "max 100000\n"}, 12),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 12),
        ({"cpu.max": "nonsense\n"}, 12),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 12),
    ],
)
def test_a_containers_share_of_the_cores_counts(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(module, "_CGROUPS", tmp_path)
    assert usable_cores() == cores
