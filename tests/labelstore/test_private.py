"""Caches hold this user's own files alone: nothing of another user's is served, or written to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from labelstore import CacheError, LabelMapReader
from labelstore.storage.chunks import DataFile
from labelstore.storage.private import open_private, private_folder

ROWS = list(range(21))
STRANGER = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def store(picture_store, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("labelstore.storage.open.local_path", lambda location: location if isinstance(location, Path) else None)
    return Path(shutil.copytree(picture_store, tmp_path / "there.zarr"))


def open_cached(store: Path, folder: Path) -> LabelMapReader:
    return LabelMapReader(store, cache=folder)


def open_mirrored(store: Path, folder: Path) -> LabelMapReader:
    return LabelMapReader(str(store), cache_dir=folder)


ways = pytest.mark.parametrize("opened", [open_cached, open_mirrored])


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@ways
def test_a_folder_that_is_made_is_private(store, tmp_path, opened):
    folder = tmp_path / "new" / "cache"
    opened(store, folder).read(ROWS)
    assert mode(folder) == 0o700
    assert {mode(path) & 0o077 for path in folder.iterdir()} == {0}
    assert not [path for path in folder.iterdir() if path.name.startswith("labelstore-0")]


@ways
@pytest.mark.parametrize("bits", [0o755, 0o777, 0o1777, 0o770, 0o701])
def test_in_a_shared_folder_a_private_one_is_used(store, tmp_path, opened, bits):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(bits)
    truth = LabelMapReader(store).read(ROWS).scores
    for _ in range(2):
        np.testing.assert_array_equal(opened(store, shared).read(ROWS).scores, truth)
    (own,) = shared.iterdir()
    assert own.name == f"labelstore-{os.geteuid()}"
    assert mode(own) == 0o700
    assert mode(shared) == bits & 0o777


@ways
@pytest.mark.parametrize("trap", ["link", "file", "open folder"])
def test_traps_in_place_of_the_private_folder_are_refused(store, tmp_path, opened, trap):
    shared, target = tmp_path / "shared", tmp_path / "target"
    shared.mkdir()
    target.mkdir(mode=0o700)
    own = shared / f"labelstore-{os.geteuid()}"
    match trap:
        case "link":
            own.symlink_to(target)
        case "file":
            own.touch()
        case "open folder":
            own.mkdir()
            own.chmod(0o777)
    with pytest.raises(CacheError, match="expected a folder"):
        opened(store, shared)
    assert not list(target.iterdir())


@as_root
@ways
def test_a_folder_of_another_user_is_refused(store, tmp_path, opened):
    shared = tmp_path / "shared"
    own = shared / f"labelstore-{os.geteuid()}"
    own.mkdir(mode=0o700, parents=True)
    os.chown(own, STRANGER, STRANGER)
    with pytest.raises(CacheError, match="this user's alone .*uid 4711; remove it, or give another folder"):
        opened(store, shared)


@as_root
def test_records_of_another_user_are_not_served(store, tmp_path):
    folder = tmp_path / "cache"
    open_cached(store, folder).read(ROWS)
    (file,) = folder.iterdir()
    os.chown(file, STRANGER, STRANGER)
    with pytest.raises(CacheError, match="uid 4711; remove it"):
        open_cached(store, folder)


@as_root
@pytest.mark.parametrize("name", ["scores", "commits", "status"])
def test_shards_of_another_user_are_read_from_the_server(store, tmp_path, name):
    folder = tmp_path / "cache"
    truth = LabelMapReader(store).read(ROWS).scores
    open_mirrored(store, folder).read(ROWS)
    for file in folder.glob(f"*.shards/{name}/c*"):
        os.chown(file, STRANGER, STRANGER)
    np.testing.assert_array_equal(open_mirrored(store, folder).read(ROWS).scores, truth)


def test_files_that_are_no_files_are_refused(tmp_path):
    folder = private_folder("cache", tmp_path / "cache")
    os.mkfifo(folder / "pipe")
    (folder / "target").write_text("x")
    (folder / "link").symlink_to(folder / "target")
    for name in ("pipe", "link"):
        with pytest.raises(CacheError):
            open_private("cache", folder / name)
    with pytest.raises(OSError, match="cannot be read"):
        DataFile(str(folder / "link"), os.geteuid())
    assert DataFile(str(folder / "link")).whole(9) == b"x"
