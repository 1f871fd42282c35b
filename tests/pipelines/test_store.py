"""Writing: what is on the disk when, and what is never overwritten."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from folders import edit_attributes

from labelstore import FormatError, LabelMapReader, PendingRowError, StoreWriteError
from labelstore.ids import pack_ids
from labelstore.pipelines import store as store_module
from labelstore.pipelines.folder import StoreFolder
from labelstore.pipelines.sink import ZarrSink
from labelstore.pipelines.store import ShardWriter, create_store
from labelstore.schema import COMMIT_FIELDS

GOLDEN = Path(__file__).parent.parent / "golden" / "v1-topk.zarr"
FILES = ("classes", "scores", "score_range", "status", "errors", "image_crc32")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "copy.zarr"))


def rows_of(store: Path, shard: int) -> dict[str, np.ndarray]:
    writer = ShardWriter(str(store))
    rows = writer.info.shard_rows(shard)
    return {name: np.asarray(zarr.open_array(store / name, mode="r")[rows.start : rows.stop]) for name in FILES}


def data_files(store: Path, shard: int) -> list[Path]:
    return [store / name / (f"c.{shard}" + ".0" * zeros) for name, zeros in zip(FILES, (3, 3, 1, 0, 1, 0), strict=True)]


def test_a_new_store_is_all_pending(tmp_path):
    info = LabelMapReader(GOLDEN).info
    ids = pack_ids(list(LabelMapReader(GOLDEN).ids))
    made = create_store(str(tmp_path / "new.zarr"), info, ids, np.arange(9, dtype=np.int32))
    reader = LabelMapReader(tmp_path / "new.zarr")
    assert not reader.status().any()
    assert list(reader.ids) == list(LabelMapReader(GOLDEN).ids)
    assert reader.info == made == replace(info, store_id=made.store_id)
    assert made.store_id is not None
    with pytest.raises(PendingRowError):
        reader.read([0])


def test_the_commit_is_what_the_format_says(copy):
    commits = np.asarray(zarr.open_array(copy / "commits", mode="r")[...])
    assert commits.shape == (3, len(FILES), len(COMMIT_FIELDS))
    assert not commits[2].any()
    for shard in (0, 1):
        for file, (length, head, tail, crc) in zip(data_files(copy, shard), commits[shard].tolist(), strict=True):
            data = file.read_bytes()
            assert (length, crc) == (len(data), google_crc32c.value(data))
            assert (head, tail) == tuple(int.from_bytes(part, "little") for part in (data[:4], data[-4:]))


def test_a_shard_comes_back_byte_for_byte(copy):
    arrays = rows_of(copy, 1)
    files = (*data_files(copy, 1), copy / "commits" / "c.1.0.0")
    ShardWriter(str(copy)).write(1, arrays)
    before = {file: file.read_bytes() for file in files}
    ShardWriter(str(copy)).write(1, arrays)
    assert {file: file.read_bytes() for file in files} == before
    assert not list(copy.rglob("*.partial"))


def test_the_commit_is_written_last_and_removed_first(copy, monkeypatch):
    """Every fsync, rename and removal in order: data files and their names are on the disk before the commit appears."""
    events: list[tuple[str, str]] = []

    def watch(module, name, path_of):
        plain = getattr(module, name)

        def watched(*args, **kwargs):
            events.append((name, path_of(*args, **kwargs).relative_to(copy.resolve()).as_posix()))
            return plain(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    def opened(descriptor: int) -> Path:
        return Path(f"/proc/self/fd/{descriptor}").readlink()

    arrays = rows_of(copy, 1)
    watch(os, "replace", lambda _, target, *, src_dir_fd, dst_dir_fd: opened(dst_dir_fd) / target)
    watch(os, "unlink", lambda name, *, dir_fd: opened(dir_fd) / name)
    watch(os, "fsync", opened)
    ShardWriter(str(copy)).write(1, arrays)
    commit = "commits/c.1.0.0"
    assert events[:2] == [("unlink", commit), ("fsync", "commits")]
    written = events.index(("replace", commit))
    for file in data_files(copy, 1):
        name = file.relative_to(copy).as_posix()
        synced = [at for at, (what, where) in enumerate(events) if what == "fsync" and where.startswith(f"{name}.")]
        renamed, listed = events.index(("replace", name)), events.index(("fsync", file.parent.name))
        assert 1 < synced[0] < renamed < listed < written
    assert events[written - 1][0] == "fsync"
    assert events[written - 1][1].startswith(f"{commit}.")
    assert events[written + 1 :] == [("fsync", "commits")]


@pytest.mark.parametrize("fails_at", range(len(FILES) + 1))
def test_a_write_that_fails_leaves_the_shard_pending(copy, monkeypatch, fails_at):
    arrays, calls, plain = rows_of(copy, 1), [], StoreFolder.create

    def full_disk(self, key, data):
        calls.append(key)
        if len(calls) == fails_at + 1:
            raise OSError(28, "No space left on device")
        plain(self, key, data)

    writer = ShardWriter(str(copy))
    monkeypatch.setattr(StoreFolder, "create", full_disk)
    with pytest.raises(StoreWriteError, match="cannot be written: No space left on device.*run the same command again"):
        writer.write(1, arrays)
    monkeypatch.undo()
    assert len(calls) == fails_at + 1
    reader = LabelMapReader(copy)
    with pytest.raises(PendingRowError):
        reader.read([4])
    reader.read([0])
    ShardWriter(str(copy)).write(1, arrays)
    np.testing.assert_array_equal(LabelMapReader(copy).read([4]).scores, LabelMapReader(GOLDEN).read([4]).scores)


def test_arrays_must_have_the_shards_rows(copy):
    arrays = rows_of(copy, 1)
    with pytest.raises(ValueError, match="status: expected the 4 rows of shard 1, got 3"):
        ShardWriter(str(copy)).write(1, {**arrays, "status": arrays["status"][:3]})
    assert len(LabelMapReader(copy).read([4]).classes) == 1


def test_a_store_with_other_codecs_is_only_read(copy):
    meta = copy / "status" / "zarr.json"
    meta.write_text(meta.read_text().replace('"checksum": true', '"checksum": false'))
    edit_attributes(copy, lambda own: None)
    assert LabelMapReader(copy).read([0]).classes.shape == (1, 3, 4, 6)
    with pytest.raises(FormatError, match="can only be read"):
        ShardWriter(str(copy))


def test_files_that_were_cut_short_are_written_anew(copy):
    arrays = rows_of(copy, 1)
    for file in data_files(copy, 1):
        file.write_bytes(file.read_bytes()[:7])
    ShardWriter(str(copy)).write(1, arrays)
    np.testing.assert_array_equal(LabelMapReader(copy).read([4]).scores, LabelMapReader(GOLDEN).read([4]).scores)


def create_at(path: Path) -> None:
    reader = LabelMapReader(GOLDEN)
    create_store(str(path), reader.info, pack_ids(list(reader.ids)), reader.targets)


def test_nothing_of_the_users_is_overwritten(tmp_path, copy):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    for path in (folder, copy, folder / "notes.txt"):
        with pytest.raises((FormatError, StoreWriteError)):
            create_at(path)
    assert (folder / "notes.txt").read_text() == "keep me"
    assert len(LabelMapReader(copy)) == 9


def test_an_empty_folder_and_a_creation_that_was_cut_off_are_used(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    create_at(tmp_path / "empty")
    assert len(LabelMapReader(tmp_path / "empty")) == 9
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_index", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            create_at(tmp_path / "cut.zarr")
    create_at(tmp_path / "cut.zarr")
    assert len(LabelMapReader(tmp_path / "cut.zarr")) == 9


def test_ids_of_a_shard():
    assert ShardWriter(str(GOLDEN)).image_ids(0) == ["a 1.png", "b/é.png", "c.jpg", "d.jpg"]
    assert ShardWriter(str(GOLDEN)).image_ids(2) == ["i.jpg"]


def test_a_store_written_through_zarr_has_the_same_bytes(copy, tmp_path, monkeypatch):
    """The way to stores behind URLs, here to a folder."""
    arrays, files = rows_of(copy, 1), (*data_files(copy, 1), copy / "commits" / "c.1.0.0")
    ShardWriter(str(copy)).write(1, arrays)
    direct = [file.read_bytes() for file in files]
    for file in files[:3]:
        file.unlink()
    monkeypatch.setattr(store_module, "open_sink", ZarrSink)
    writer = ShardWriter(str(copy))
    assert isinstance(writer._sink, ZarrSink)
    writer.write(1, arrays)
    assert [file.read_bytes() for file in files] == direct
    writer.discard(1)
    with pytest.raises(PendingRowError):
        LabelMapReader(copy).read([4])
    writer.discard(1)
