"""What is removed from a store's folder: a store's own plain files, by their names, and nothing behind a link."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from commands import TOY, run_here
from folders import HALF, contents
from runs import SERIAL

from labelstore import FormatError, LabelMapReader
from labelstore.errors import StoreWriteError
from labelstore.ids import pack_ids
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.folder import StoreFolder, is_own_name, remove_cut_off_creation
from labelstore.pipelines.left_overs import remove_left_overs
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import repair_store
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import LocalSink
from labelstore.pipelines.store import create_store
from labelstore.schema import UNFINISHED

OWN = ["zarr.json", "c.0", "c.0.0", "c.12.0.0", f"zarr.json.{HALF}", f"zarr.{HALF}", f"c.3.0.{HALF}", f"c.{HALF}"]
OTHERS = ["c", "c.01", "c.x", "data", ".zgroup", "zarr.json.bak", "movie.partial", "c.0.0.0123.partial", f"movie.{HALF}"]


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder of the user's, with files that are named as a store's are."""
    home = tmp_path / "home"
    for name in (*OWN, "letter.txt", f"mark.{HALF}", f"c.1.0.0.0.{HALF}"):
        home.mkdir(exist_ok=True)
        (home / name).write_text("mine")
    return home


# Names


@pytest.mark.parametrize("name", OWN)
def test_names_that_a_store_gives(name):
    assert is_own_name(name)


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_others(name):
    assert not is_own_name(name)


# The folder itself


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "socket", "folder"])
def test_nothing_but_a_plain_file_is_removed(topk, tmp_path, kind):
    odd = topk / "status" / "c.7"
    if kind == "link":
        odd.symlink_to(topk / "status" / "c.1")
    elif kind == "dangling link":
        odd.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        here = Path.cwd()
        os.chdir(odd.parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(odd.name)
        os.chdir(here)
    with StoreFolder(topk) as folder, pytest.raises(StoreWriteError, match=f"expected a file .*found a {kind.split()[-1]}"):
        folder.remove("status/c.7")
    assert os.path.lexists(odd)


def test_a_linked_folder_is_neither_listed_nor_written_nor_emptied(topk, home):
    (topk / "ids_7").symlink_to(home)
    before = contents(home)
    with StoreFolder(topk) as folder:
        for work in (
            lambda: folder.entries("ids_7"),
            lambda: folder.remove("ids_7/zarr.json"),
            lambda: folder.create("ids_7/new", b""),
            lambda: folder.rename("ids_7/c.0", "ids_7/c.1"),
            lambda: folder.sync("ids_7"),
        ):
            with pytest.raises(StoreWriteError, match=r"ids_7: expected a folder of the store's, found a link; nothing is"):
                work()
    assert contents(home) == before


@pytest.mark.parametrize("key", ["../home/letter.txt", "..", "a/../b", "status/..", "", "/etc/passwd", "a/b/c"])
def test_a_key_that_leads_elsewhere_is_refused(topk, home, key):
    with StoreFolder(topk) as folder, pytest.raises(ValueError, match="expected"):
        folder.remove(key)
    assert (home / "letter.txt").exists()


def test_a_folder_that_becomes_a_link_in_the_middle_is_still_the_old_one(topk, home):
    """What was opened once is not looked up again."""
    with StoreFolder(topk) as folder:
        folder.entries("status")
        (topk / "status").rename(topk.parent / "moved")
        (topk / "status").symlink_to(home)
        assert folder.remove("status/c.0")
    assert (home / "c.0").read_text() == "mine"
    assert not (topk.parent / "moved" / "c.0").exists()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders(topk, monkeypatch, code):
    """Some FUSE and SMB mounts; files are synced all the same."""
    plain, synced = os.fsync, []

    def no_folders(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        if name.is_dir():
            raise OSError(code, os.strerror(code))
        synced.append(name.name)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    sink = LocalSink(topk)
    sink.put({"status/c.1": b"new"})
    sink.flush(["status/c.1"])
    assert (topk / "status" / "c.1").read_bytes() == b"new"
    assert len(synced) == 1


def test_a_disk_that_fails_to_sync_a_folder_is_told(topk, monkeypatch):
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        LocalSink(topk).flush(["status/c.1"])


# Commands


def linked_store(store: Path, home: Path, names: list[str]) -> dict[str, bytes]:
    for name in names:
        if (store / name).is_dir():
            shutil.rmtree(store / name)
        elif (store / name).exists():
            (store / name).unlink()
        (store / name).symlink_to(home / Path(name).name if "/" in name else home)
    return contents(home)


LINKS = [["ids_7"], ["ids_7", "ids_8"], ["status/c.9"], [f"status/c.3.{HALF}"], [f"zarr.{HALF}"]]


@pytest.mark.parametrize("names", LINKS)
def test_repair_and_annotate_delete_behind_no_link(topk, pictures, home, names):
    before = linked_store(topk, home, names)
    (topk / "commits" / "c.2.0.0").unlink()
    done = repair_store(str(topk), 1, Observer())
    assert (sorted(done.kept), done.left_overs) == (names, 0)
    assert {problem.message for problem in done.found.problems} == {"a link, no file of a label store"}
    annotate(pictures, str(topk), Settings("toy_annotators:colours"), SERIAL, Observer())
    assert contents(home) == before
    assert all((topk / name).is_symlink() for name in names)
    assert LabelMapReader(topk).status().all()


@pytest.mark.parametrize("array", ["status", "scores", "ids", "commits"])
@pytest.mark.parametrize("command", ["repair", "annotate"])
def test_nothing_is_written_behind_the_link_of_an_array(topk, pictures, tmp_path, array, command):
    (topk / array).rename(tmp_path / "elsewhere")
    (topk / array).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / f"c.1.{HALF}").touch()
    (tmp_path / "elsewhere" / "c.9.0.0").touch()
    before = contents(tmp_path / "elsewhere")
    shown = run_here(command, topk) if command == "repair" else run_here(command, pictures, "--store", topk, *TOY)
    assert shown.code == 1, shown.out
    assert "Behind links nothing is read, written or removed" in shown.message
    assert contents(tmp_path / "elsewhere") == before


def test_left_overs_go_from_a_store_alone(tmp_path, topk):
    for name in ("zarr.json", "commits/zarr.json"):
        (topk / name).unlink()
    (topk / "status" / f"c.1.{HALF}").touch()
    with pytest.raises(FormatError):
        remove_left_overs(str(topk))
    assert (topk / "status" / f"c.1.{HALF}").exists()


# Creation


def unfinished(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(f'{{"zarr_format": 3, "node_type": "group", "attributes": {{"{UNFINISHED}": true}}}}')
    for name in ("classes", "ids", "commits"):
        (path / name).mkdir()
        (path / name / "zarr.json").write_text("{}")
    (path / "ids" / "c.0.0").touch()
    (path / "ids" / f"c.1.0.{HALF}").touch()
    (path / f"zarr.{HALF}").touch()
    return path


def create_at(path: Path, of: Path) -> None:
    reader = LabelMapReader(of)
    create_store(str(path), reader.info, pack_ids(list(reader.ids)), np.full(reader.info.num_rows, -1, np.int32))


def test_the_remains_of_a_creation_are_removed(picture_store, tmp_path):
    path = unfinished(tmp_path / "cut.zarr")
    remove_cut_off_creation(path, LabelMapReader(picture_store).info)
    assert list(path.iterdir()) == []
    create_at(unfinished(tmp_path / "again.zarr"), picture_store)
    assert len(LabelMapReader(tmp_path / "again.zarr")) == 21


@pytest.mark.parametrize(
    "stranger", ["notes.txt", "classes/c.0.0.0.0", "ids/notes.txt", "Photos/zarr.json", "photos/1.jpg", "ids/deep/c.0"]
)
def test_a_creation_that_others_have_put_something_in_is_left_alone(picture_store, tmp_path, stranger):
    path = unfinished(tmp_path / "cut.zarr")
    (path / stranger).parent.mkdir(parents=True, exist_ok=True)
    (path / stranger).write_text("mine")
    before = contents(path)
    with pytest.raises(FormatError, match="expected only what the creation of a store leaves .* nothing is removed"):
        create_at(path, picture_store)
    assert contents(path) == before


@pytest.mark.parametrize("link", ["ids", "ids_1", "classes", "ids/c.0.0", f"zarr.{HALF}"])
def test_a_creation_with_a_link_is_left_alone(picture_store, tmp_path, home, link):
    path = unfinished(tmp_path / "cut.zarr")
    before = linked_store(path, home, [link])
    with pytest.raises(FormatError, match="found a link of another's; nothing is removed"):
        create_at(path, picture_store)
    assert contents(home) == before
    assert (path / link).is_symlink()


def test_a_folder_of_downloads_is_not_blank(picture_store, tmp_path):
    (tmp_path / "movie.partial").write_text("half of it")
    with pytest.raises(FormatError, match="found something else"):
        create_at(tmp_path, picture_store)
    assert (tmp_path / "movie.partial").read_text() == "half of it"
