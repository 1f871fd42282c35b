"""`repair`, then annotate: the store is the one that was damaged again, to the byte."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from commands import environment
from damage import Damage, deletions, flips, keys_of, labels_of, rewrite, served, truncations
from folders import HALF, changed, contents, edit_attributes, stamps
from pictures import paint
from runs import SERIAL

from labelstore import FormatError, LabelMapReader, StoreNotFoundError
from labelstore.errors import RunError, StoreBusyError, StoreWriteError
from labelstore.ids import pack_ids
from labelstore.pipelines.annotate import annotate
from labelstore.pipelines.index import write_index
from labelstore.pipelines.observer import Observer
from labelstore.pipelines.repairing import Repair, repair_store
from labelstore.pipelines.settings import Settings
from labelstore.pipelines.sink import LocalSink, open_sink
from labelstore.pipelines.store_files import CannotReadError
from labelstore.pipelines.summary import Summary
from labelstore.pipelines.verifying import verify_store
from labelstore.schema import ATTRIBUTE
from labelstore.storage.seals import SEALS, json_bytes, seal_of


def repair(store: Path | str) -> Repair:
    return repair_store(str(store), 1, Observer(), agree=lambda _: True)


def annotate_again(images: Path, store: Path | str, **how) -> Summary:
    return annotate(images, str(store), Settings("toy_annotators:colours"), SERIAL, Observer(), **how)


def is_whole(store: Path) -> bool:
    return verify_store(str(store), 1, Observer()).whole


def assert_comes_back(store: Path, images: Path, damages: list[Damage], original: dict[str, bytes], truth) -> None:
    """Found, never served, and undone by repair and annotate, to the byte."""
    for damage in damages:
        damage.do(store)
    assert not is_whole(store), damages
    served(store, truth)
    done = repair(store)
    assert done.kept == ()
    assert not verify_store(str(store), 1, Observer()).damaged
    served(store, truth)
    annotate_again(images, store)
    assert contents(store) == original, damages


def test_a_store_without_a_fault_is_left_alone(store):
    before = stamps(store)
    done = repair(store)
    assert (done.shards, done.index_files, done.left_overs, done.metadata, done.kept) == (0, 0, 0, False, ())
    assert not changed(before, stamps(store))


def test_one_damage_of_each_kind_comes_back_to_the_byte(store, pictures):
    original, truth, rng = contents(store), labels_of(store), random.Random(0)
    for damage in (*flips(store, 15, rng), *truncations(store, 10, rng), *deletions(store, 15, rng)):
        assert_comes_back(store, pictures, [damage], original, truth)


def test_several_damages_come_back_to_the_byte(store, pictures):
    original, truth = contents(store), labels_of(store)
    for seed in range(8):
        rng = random.Random(seed)
        some = [*flips(store, 4, rng), *truncations(store, 3, rng), *deletions(store, 3, rng)]
        by_file = {damage.key: damage for damage in some}
        if seed % 2:
            by_file.pop("commits/zarr.json", None)
        else:
            by_file.pop("zarr.json", None)
        assert_comes_back(store, pictures, list(by_file.values()), original, truth)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [(flips, 1000), (truncations, 200), (deletions, 100)])
def test_a_thousand_damages_come_back_to_the_byte(store, pictures, kind, count):
    original, truth = contents(store), labels_of(store)
    for damage in kind(store, count, random.Random(count)):
        assert_comes_back(store, pictures, [damage], original, truth)


def test_all_metadata_but_one_copy_lost(store, pictures):
    original = contents(store)
    for kept in ("zarr.json", "commits/zarr.json"):
        for key in keys_of(store):
            if key.endswith("zarr.json") and key != kept:
                (store / key).unlink()
        done = repair(store)
        assert (done.metadata, done.shards, done.index_files) == (True, 0, 0)
        assert contents(store) == original
        assert annotate_again(pictures, store).new_rows == 0


@pytest.mark.parametrize("how", ["{", ""])
def test_metadata_that_are_lost_in_both_places_stay_as_they_are(topk, how):
    for key in ("zarr.json", "commits/zarr.json"):
        (topk / key).write_text(how)
    before = stamps(topk)
    with pytest.raises(FormatError, match="so the store cannot be mended"):
        repair(topk)
    assert not changed(before, stamps(topk))


def test_what_another_version_or_the_user_added_to_the_attributes_is_kept(topk):
    for key in ("zarr.json", "commits/zarr.json"):
        meta = json.loads((topk / key).read_text())
        meta["attributes"][ATTRIBUTE]["later"] = {"x": 1}
        meta["attributes"]["mine"] = "a note"
        meta["attributes"][SEALS]["attributes"] = seal_of(meta["attributes"][ATTRIBUTE])
        (topk / key).write_bytes(json_bytes(meta))
    original = contents(topk)
    assert is_whole(topk)
    (topk / "status" / "zarr.json").unlink()
    repair(topk)
    assert contents(topk) == original


def test_metadata_in_the_words_of_another_zarr_are_kept(topk):
    """The array's own, with a checksum that fits it, though this zarr-python would write others."""
    meta = json.loads((topk / "status" / "zarr.json").read_text())
    meta["dimension_names"] = None
    (topk / "status" / "zarr.json").write_bytes(json_bytes(meta))
    for key in ("zarr.json", "commits/zarr.json"):
        root = json.loads((topk / key).read_text())
        root["attributes"][SEALS]["status"] = seal_of(meta)
        (topk / key).write_bytes(json_bytes(root))
    original = contents(topk)
    assert is_whole(topk)
    (topk / "errors" / "zarr.json").write_text("{")
    assert repair(topk).metadata
    assert contents(topk) == original


def test_values_that_no_map_has_are_made_again(topk, pictures):
    original = contents(topk)
    rewrite(topk, 1, lambda arrays: arrays["classes"].__setitem__((2, 1), 99))
    rewrite(topk, 3, lambda arrays: arrays["status"].__setitem__(0, 0))
    done = repair(topk)
    assert (done.shards, done.found.damaged) == (2, [1, 3])
    assert (LabelMapReader(topk).status() == 0).nonzero()[0].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert annotate_again(pictures, topk).new_rows == 8
    assert contents(topk) == original


def test_nothing_but_its_commit_is_taken_from_a_damaged_shard(topk):
    (topk / "scores" / "c.1.0.0.0").write_bytes(b"")
    before = contents(topk)
    repair(topk)
    aside = {"commits/c.1.0.0.set-aside": before.pop("commits/c.1.0.0")}
    assert contents(topk) == before | aside


def test_commits_are_gone_from_the_disk_when_it_returns(topk, monkeypatch):
    done: list[str] = []
    move, flush = LocalSink.move, LocalSink.flush
    monkeypatch.setattr(LocalSink, "move", lambda self, key, new: (done.append(f"move {key}"), move(self, key, new))[1])
    monkeypatch.setattr(
        LocalSink, "flush", lambda self, keys: (done.extend(f"flush {key}" for key in keys), flush(self, list(keys)))[1]
    )
    (topk / "scores" / "c.1.0.0.0").unlink()
    repair(topk)
    assert done == ["move commits/c.1.0.0", "flush commits/c.1.0.0"]


def test_two_rows_with_one_id(topk, pictures):
    original, info = contents(topk), LabelMapReader(topk).info
    ids = list(LabelMapReader(topk).ids)
    ids[13] = ids[6]
    write_index(open_sink(str(topk)), info, {"ids": pack_ids(ids)}, [3])
    assert repair(topk).index_files == 2
    annotate_again(pictures, topk)
    assert contents(topk) == original


# Nothing is given up for good, and not much without a question


def failing(monkeypatch, code: int, *names: str) -> None:
    """Let the disk fail at files."""
    plain = os.fstat

    def stat(descriptor: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name in names:
            raise OSError(code, os.strerror(code))
        return plain(descriptor)

    monkeypatch.setattr(os, "fstat", stat)


@pytest.mark.parametrize("code", [errno.EIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_disk_that_fails_for_a_while_costs_nothing(topk, monkeypatch, code):
    before = stamps(topk)
    with monkeypatch.context() as patch:
        failing(patch, code, *(f"c.{shard}" for shard in range(6)))
        done = repair(topk)
        assert (done.shards, done.index_files, done.found.rows["unreadable"]) == (0, 0, 21)
        assert {problem.file.split("/")[0] for problem in done.found.unreadable} == {"status", "image_crc32", "targets"}
    assert not changed(before, stamps(topk))
    assert is_whole(topk)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EACCES, errno.EMFILE])
def test_a_server_that_is_away_ends_it_and_costs_nothing(topk, monkeypatch, code):
    (topk / "scores" / "c.1.0.0.0").unlink()
    before = stamps(topk)
    with monkeypatch.context() as patch:
        failing(patch, code, "c.4")
        with pytest.raises(CannotReadError, match=f"c.4: cannot be read: {os.strerror(code)}.*nothing was changed"):
            repair(topk)
    assert not changed(before, stamps(topk))


def test_what_is_damaged_beside_what_cannot_be_read_is_mended_alone(topk, monkeypatch):
    for shard in (1, 2):
        (topk / "scores" / f"c.{shard}.0.0.0").write_bytes(b"")
    with monkeypatch.context() as patch:
        failing(patch, errno.EIO, "c.2")
        done = repair(topk)
    assert (done.shards, done.found.damaged) == (1, [1])
    assert (topk / "commits" / "c.2.0.0").exists()


def test_what_was_given_up_comes_back_if_it_was_right(store):
    original = contents(store)
    keys = [key for key in original if key.split("/")[-1].startswith(("c.1", "c.4"))]
    for key in keys:
        if not key.startswith("commits"):
            (store / key).write_bytes(b"what a bad cable gave")
    assert repair(store).shards == 2
    assert not (store / "commits" / "c.1.0.0").exists()
    for key in keys:
        if key.split("/")[0] not in ("commits", "ids", "targets"):
            (store / key).write_bytes(original[key])
    for key in ("ids", "targets"):
        for file in (store / key).glob("*.set-aside"):
            file.write_bytes(original[f"{key}/{file.name.removesuffix('.set-aside')}"])
    done = repair(store)
    assert (done.brought_back, done.found.whole) == (6, True)
    assert contents(store) == original


def test_what_is_still_wrong_stays_aside_until_it_is_made_again(topk, pictures):
    original = contents(topk)
    (topk / "scores" / "c.1.0.0.0").write_bytes(b"")
    (topk / "ids" / "c.3.0").write_bytes(b"")
    repair(topk)
    again = repair(topk)
    assert (again.brought_back, again.shards, again.kept) == (0, 0, ())
    assert sorted(file.name for file in topk.rglob("*.set-aside")) == ["c.1.0.0.set-aside", "c.3.0.set-aside"]
    annotate_again(pictures, topk)
    assert contents(topk) == original


def test_most_shards_are_given_up_only_where_that_is_agreed_to(topk):
    (topk / "scores").rename(topk.parent / "not mounted")
    (topk / "scores").mkdir()
    shutil.copy(topk.parent / "not mounted" / "zarr.json", topk / "scores")
    before, asked = stamps(topk), []
    with pytest.raises(RunError, match=r"6 of 6 shards are damaged.*Nothing was changed.*--yes"):
        repair_store(str(topk), 1, Observer(), agree=lambda text: bool(asked.append(text)))
    assert len(asked) == 1
    assert not changed(before, stamps(topk))
    for shard in (0, 1, 2):  # half of them
        shutil.copy(topk.parent / "not mounted" / f"c.{shard}.0.0.0", topk / "scores")
    assert repair_store(str(topk), 1, Observer()).shards == 3


def test_an_array_whose_folder_is_gone_is_made_again(topk, pictures):
    original = contents(topk)
    shutil.rmtree(topk / "errors")
    assert repair(topk).metadata
    annotate_again(pictures, topk)
    assert contents(topk) == original


# Files that are left over, and others


def litter(store: Path) -> tuple[list[str], list[str]]:
    left = [f"classes/c.1.0.0.0.{HALF}", f"zarr.json.{HALF}", "status/c.6", "ids_1/c.0.0", "ids_1/zarr.json"]
    strange = ["notes.txt", "classes/notes.txt", "mine/zarr.json", f"movie.{HALF}", "classes/movie.partial"]
    for key in (*left, *strange):
        (store / key).parent.mkdir(exist_ok=True)
        (store / key).touch()
    return left, strange


def test_left_overs_go_and_other_files_stay(topk):
    before = set(contents(topk))
    left, strange = litter(topk)
    done = repair(topk)
    assert done.left_overs == len(left) + 1  # and the folder
    assert sorted(done.kept) == sorted(strange)
    assert set(contents(topk)) == before | set(strange)
    assert not (topk / "ids_1").exists()
    again = repair(topk)
    assert (again.left_overs, sorted(again.kept)) == (0, sorted(strange))


def test_annotate_removes_left_overs_too_and_leaves_other_files(topk, pictures):
    before = set(contents(topk))
    _, strange = litter(topk)
    annotate_again(pictures, topk)
    assert set(contents(topk)) == before | set(strange)
    assert not (topk / "ids_1").exists()


# Others at the store


HOLD = """
import sys, time
from labelstore.pipelines.lock import store_lock
with store_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_store_that_another_process_writes_to_is_not_repaired(topk):
    (topk / "scores" / "c.1.0.0.0").unlink()
    command = [sys.executable, "-c", HOLD, str(topk)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        before = stamps(topk)
        with pytest.raises(StoreBusyError, match=f"process {process.pid} on"):
            repair(topk)
        assert not changed(before, stamps(topk))
        process.kill()
    assert repair(topk).shards == 1


@pytest.mark.parametrize("made", [True, False])
def test_where_there_is_no_store_nothing_is_made(tmp_path, made):
    if made:
        (tmp_path / "labels.zarr").mkdir()
    with pytest.raises(StoreNotFoundError):
        repair(tmp_path / "labels.zarr")
    assert list(tmp_path.rglob("*")) == ([tmp_path / "labels.zarr"] if made else [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written(topk):
    (topk / "scores" / "c.1.0.0.0").unlink()
    topk.chmod(0o500)
    with pytest.raises(StoreWriteError, match="Permission denied"):
        repair(topk)
    topk.chmod(0o700)


def test_a_full_disk_stops_it_in_words(topk, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalSink, "put", full)
    (topk / "status" / "zarr.json").unlink()
    with pytest.raises(StoreWriteError, match="No space left on device"):
        repair(topk)


# Other stores


def test_a_store_that_was_extended(store, pictures, tmp_path):
    both = Path(shutil.copytree(pictures, tmp_path / "both"))
    for number in range(5):
        paint(both / "cyan" / f"{number}.png", "cyan")
    paint(both / "green" / "a longer name.png", "green")
    annotate_again(both, store, extend=True)
    shutil.rmtree(store / "ids")  # kept for readers that were opened before, and no part of the store any more
    original, truth, rng = contents(store), labels_of(store), random.Random(5)
    assert "ids_1/zarr.json" in original
    for damage in (*flips(store, 10, rng), *truncations(store, 10, rng), *deletions(store, 10, rng)):
        assert_comes_back(store, both, [damage], original, truth)


def test_a_store_behind_a_url(picture_store, pictures, tmp_path):
    memory, folder = fsspec.filesystem("memory"), f"/bucket/{tmp_path.name}.zarr"
    original = contents(picture_store)
    for key, data in original.items():
        memory.pipe(f"{folder}/{key}", data)
    for damage in (
        *(Damage(key, None) for key in ("zarr.json", "commits/zarr.json", "ids/c.1.0", "targets/c.0", "commits/c.2.0.0")),
        *(Damage(key, b"") for key in ("zarr.json", "scores/zarr.json", "scores/c.4.0.0.0", "ids/c.5.0", "commits/c.0.0.0")),
        *flips(picture_store, 10, random.Random(6)),
    ):
        if damage.data is None:
            memory.rm(f"{folder}/{damage.key}")
        else:
            memory.pipe(f"{folder}/{damage.key}", damage.data)
        memory.pipe(f"{folder}/status/c.0.{HALF}", b"")
        done = repair(f"memory:/{folder}")
        assert (done.left_overs, done.kept) == (1, ())
        annotate_again(pictures, f"memory:/{folder}")
        found = {key.removeprefix(f"{folder}/"): memory.cat(key) for key in memory.find(folder)}
        assert found == original, damage


def test_a_store_that_keeps_no_checksums_of_its_metadata(topk, pictures):
    edit_attributes(topk, lambda attributes: None)
    original = contents(topk)
    (topk / "scores" / "c.1.0.0.0").unlink()
    (topk / "ids" / "c.1.0").write_bytes(b"")
    done = repair(topk)
    assert (done.shards, done.index_files, done.metadata) == (1, 1, False)
    annotate_again(pictures, topk)
    assert contents(topk) == original
