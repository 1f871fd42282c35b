"""Memory that is written over and over."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from labelstore import LabelMapReader
from labelstore.scratch import Spares


def test_spares_are_lent_to_one_at_a_time_and_kept():
    spares = Spares()
    with spares.lend(10) as one, spares.lend(10) as other:
        one[:], other[:] = b"1" * 10, b"2" * 10
        assert bytes(one) == b"1" * 10
    with spares.lend(4) as again:
        assert len(again) == 4
        assert again.obj in (one.obj, other.obj)
    with spares.lend(1000) as larger:
        assert len(larger) == 1000


def test_a_spare_comes_back_after_an_error():
    spares = Spares()
    with pytest.raises(KeyError), spares.lend(8) as first:
        {}["nothing"]
    with spares.lend(8) as second:
        assert second.obj is first.obj


def test_maps_that_were_read_stay_as_they_are(picture_store, spectral_store):
    for store in (picture_store, spectral_store):
        reader = LabelMapReader(store)
        kept, packed = reader.read(list(range(10))), reader.read_packed(list(range(10)))
        before = kept.classes.copy(), kept.scores.copy(), {name: part.copy() for name, part in packed.items()}
        for _ in range(3):
            reader.read(list(range(20, 9, -1)))
            reader.pool(list(range(20, 9, -1)), [(0, 0, 1, 1)] * 11)
        assert (kept.classes == before[0]).all()
        assert (kept.scores == before[1]).all()
        assert all((part == before[2][name]).all() for name, part in packed.items())


def test_threads_that_pool_at_once_do_not_share_spares(picture_store):
    reader = LabelMapReader(picture_store, threads=2)
    boxes = [(0, 0, 1, 1)] * 210
    orders = [list(range(21)) * 10, list(range(20, -1, -1)) * 10]
    expected, barrier, wrong = [reader.pool(rows, boxes) for rows in orders], Barrier(4), []

    def work(number: int) -> None:
        barrier.wait()
        wrong.extend(
            number for _ in range(20) if abs(reader.pool(orders[number % 2], boxes) - expected[number % 2]).max() > 1e-6
        )

    workers = [Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
