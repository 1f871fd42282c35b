"""Disks and servers that fail under a reader: errors of labelstore's that say what to do, never bare ones of the system's."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

from labelstore import CacheError, LabelMapReader, LabelStoreError, StoreReadError
from labelstore.storage.remote import ZarrSource

ROWS = list(range(21))
BOXES = [[0.0, 0.0, 1.0, 1.0]] * 21
ERRORS = [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN]
CALLS = ["pread", "open", "fstat"]
ENTRIES: dict[str, Callable[[LabelMapReader], object]] = {
    "pool": lambda reader: reader.pool(ROWS, BOXES),
    "pool one": lambda reader: reader.pool([3], BOXES[:1]),
    "read": lambda reader: reader.read(ROWS).scores,
    "one": lambda reader: reader[3].scores,
    "packed": lambda reader: reader.read_packed(ROWS)["classes"],
    "status": lambda reader: reader.status(),
    "crc32": lambda reader: reader.image_crc32s(ROWS),
    "error": lambda reader: reader.error(3),
    "targets": lambda reader: reader.targets,
    "ids": lambda reader: list(reader.ids),
}


@pytest.fixture
def store(picture_store, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("labelstore.storage.open.local_path", lambda location: location if isinstance(location, Path) else None)
    return Path(shutil.copytree(picture_store, tmp_path / "there.zarr"))


def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int, times: int) -> list[int]:
    """Have a call of the system's fail so many times; return a list that grows with each failure."""
    plain: Callable[..., Any] = getattr(os, call)
    failed: list[int] = []

    def fails(*args: object, **kwargs: object) -> object:
        if len(failed) < times:
            failed.append(number)
            raise OSError(number, os.strerror(number))
        return plain(*args, **kwargs)

    monkeypatch.setattr(os, call, fails)
    return failed


def open_local(store: Path, folder: Path) -> LabelMapReader:
    return LabelMapReader(store)


def open_cached(store: Path, folder: Path) -> LabelMapReader:
    return LabelMapReader(store, cache=folder)


def open_mirrored(store: Path, folder: Path) -> LabelMapReader:
    return LabelMapReader(str(store), cache_dir=folder)


OPENERS = [open_local, open_cached, open_mirrored]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.filterwarnings("ignore:.*(cache is not read|cache grows no more|no more shards).*:UserWarning")
def test_a_failing_disk_is_an_error_of_ours(store, tmp_path, monkeypatch, opened, call, number, warm):
    truths = {name: ask(LabelMapReader(store)) for name, ask in ENTRIES.items()}
    for name, ask in ENTRIES.items():
        reader = opened(store, tmp_path / "cache")
        if warm:
            ask(reader)
        with monkeypatch.context() as patch:
            failing(patch, call, number, 10**6)
            try:
                np.testing.assert_array_equal(ask(reader), truths[name])
            except LabelStoreError as error:
                assert isinstance(error, OSError)
                assert os.strerror(number) in str(error)
                assert "there.zarr" in str(error)
        np.testing.assert_array_equal(ask(reader), truths[name])


@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ERRORS)
def test_opening_on_a_failing_disk(store, tmp_path, monkeypatch, opened, call, number):
    told = ""
    with monkeypatch.context() as patch:
        failing(patch, call, number, 10**6)
        try:
            opened(store, tmp_path / "cache")
        except (StoreReadError, CacheError) as error:
            told = str(error)
    assert os.strerror(number) in told or opened is open_mirrored


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_stale_handle_is_let_go_and_the_file_opened_again(store, monkeypatch, call, entry, warm):
    ask = ENTRIES[entry]
    truth, reader = ask(LabelMapReader(store)), LabelMapReader(store)
    if warm:
        ask(reader)
    with monkeypatch.context() as patch:
        failing(patch, call, errno.ESTALE, 1)
        np.testing.assert_array_equal(ask(reader), truth)
        opener = open_local(store, store)
        np.testing.assert_array_equal(ask(opener), truth)


def test_handles_that_are_stale_for_good_are_tried_twice(store, monkeypatch):
    reader = LabelMapReader(store)
    reader.read(ROWS)
    failed = failing(monkeypatch, "pread", errno.ESTALE, 10**6)
    with pytest.raises(StoreReadError, match=r"there.zarr/.*: cannot be read: Stale file handle; it was replaced"):
        reader[3]
    assert len(failed) <= 4


@pytest.mark.parametrize("zarr", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_servers_that_fail(store, monkeypatch, number, zarr):
    if zarr:
        monkeypatch.setattr("labelstore.storage.ranges.RangeSource", ZarrSource)
    for name, ask in ENTRIES.items():
        reader, truth = LabelMapReader(str(store)), ask(LabelMapReader(store))
        with monkeypatch.context() as patch:

            async def fails(*args: object, **kwargs: object) -> None:
                raise OSError(number, os.strerror(number))

            patch.setattr(LocalStore, "get", fails)
            patch.setattr(LocalStore, "getsize", fails)
            try:
                np.testing.assert_array_equal(ask(reader), truth)
            except StoreReadError as error:
                assert os.strerror(number) in str(error), name
            with pytest.raises(StoreReadError, match=os.strerror(number)):
                LabelMapReader(str(store))
        np.testing.assert_array_equal(ask(reader), truth)
